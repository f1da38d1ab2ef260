"""A component starts, reports a failed start, and ends with all its children."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from samserve.gateway.child_process import Component, ComponentFailed
from stack.ports import Ports, PortTaken

FOREVER = "import time; time.sleep(600)"
READY = f"print('ready', flush=True); {FOREVER}"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"
WITH_CHILD = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    f"print(child.pid, flush=True); {FOREVER}"
)

Make = Callable[..., Component]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "component.log"


@pytest.fixture
def make(log: Path) -> Iterator[Make]:
    """Makes and starts a component that runs this Python code."""
    made: list[Component] = []

    def start(code: str, serves: Callable[[], bool] = lambda: True, stop_seconds: float = 60.0) -> Component:
        component = Component("snake", [sys.executable, "-c", code], log=log, serves=serves, stop_seconds=stop_seconds)
        component.start()
        made.append(component)
        return component

    yield start
    for component in made:
        component.kill()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it still known by its number."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def test_one_that_ends_before_it_serves_is_named_with_the_end_of_its_log(make: Make) -> None:
    component = make("print('first'); raise SystemExit('no port for me')", serves=lambda: False)
    with pytest.raises(ComponentFailed, match=r"(?s)snake ended with exit code 1; .*no port for me"):
        component.await_serving(60)


def test_one_that_never_serves_is_named(make: Make) -> None:
    with pytest.raises(ComponentFailed, match=r"snake does not serve after 0\.2 s"):
        make(FOREVER, serves=lambda: False).await_serving(0.2)


def test_one_that_ends_by_a_signal_is_found_out(make: Make) -> None:
    component = make(FOREVER)
    component.signal(signal.SIGKILL)
    component.wait(60)
    with pytest.raises(ComponentFailed, match="was ended by signal 9"):
        component.check()


def test_one_that_is_deaf_to_sigterm_is_ended_all_the_same(make: Make, log: Path) -> None:
    component = make(DEAF, stop_seconds=0.2)
    eventually(lambda: "ready" in log.read_text())
    pid = component.pid
    component.stop()
    assert is_gone(pid)


@pytest.mark.parametrize("end", [Component.stop, Component.kill])
def test_its_children_end_with_it(make: Make, log: Path, end: Callable[[Component], None]) -> None:
    component = make(WITH_CHILD)
    eventually(lambda: log.read_text().endswith("\n"))
    end(component)
    eventually(lambda: is_gone(int(log.read_text())))


def test_a_component_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from samserve.gateway.child_process import Component\n"
        f"component = Component('snake', [sys.executable, '-c', {READY!r}], log=pathlib.Path('log'),\n"
        "    serves=lambda: True, stop_seconds=1)\n"
        "component.start(); print(component.pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path, env=environment)
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        eventually(lambda: "ready" in (tmp_path / "log").read_text())
        starter.kill()
    eventually(lambda: is_gone(pid))


def test_a_port_that_somebody_listens_on_is_refused_by_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is taken; .* --prometheus"):
            replace(Ports.free(), prometheus=port).check_free()
