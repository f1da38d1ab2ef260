"""A child process starts, reports a failed start, and ends with all its children."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samserve.gateway.child_process import ChildFailed, ChildProcess

FOREVER = "import time; time.sleep(600)"
READY = f"print('ready', flush=True); {FOREVER}"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"
WITH_CHILD = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    f"print(child.pid, flush=True); {FOREVER}"
)

Make = Callable[..., ChildProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


@pytest.fixture
def make(log: Path) -> Iterator[Make]:
    """Makes and starts a child that runs this Python code."""
    made: list[ChildProcess] = []

    def start(code: str, serves: Callable[[], bool] = lambda: True, stop_seconds: float = 60.0) -> ChildProcess:
        child = ChildProcess("snake", [sys.executable, "-c", code], log=log, serves=serves, stop_seconds=stop_seconds)
        child.start()
        made.append(child)
        return child

    yield start
    for child in made:
        child.kill()


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
    child = make("print('first'); raise SystemExit('no port for me')", serves=lambda: False)
    with pytest.raises(ChildFailed, match=r"(?s)snake ended with exit status 1; .*no port for me"):
        child.await_serving(60)


def test_one_that_never_serves_is_named(make: Make) -> None:
    with pytest.raises(ChildFailed, match=r"snake does not serve after 0\.2 s"):
        make(FOREVER, serves=lambda: False).await_serving(0.2)


def test_one_that_ends_by_a_signal_is_found_out(make: Make) -> None:
    child = make(FOREVER)
    child.signal(signal.SIGKILL)
    child.wait(60)
    with pytest.raises(ChildFailed, match=r"ended with signal 9 \(Killed\)"):
        child.check()


def test_one_that_is_deaf_to_sigterm_is_ended_all_the_same(make: Make, log: Path) -> None:
    child = make(DEAF, stop_seconds=0.2)
    eventually(lambda: "ready" in log.read_text())
    pid = child.pid
    child.stop()
    assert is_gone(pid)


@pytest.mark.parametrize("end", [ChildProcess.stop, ChildProcess.kill])
def test_its_children_end_with_it(make: Make, log: Path, end: Callable[[ChildProcess], None]) -> None:
    child = make(WITH_CHILD)
    eventually(lambda: log.read_text().endswith("\n"))
    end(child)
    eventually(lambda: is_gone(int(log.read_text())))


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from samserve.gateway.child_process import ChildProcess\n"
        f"child = ChildProcess('snake', [sys.executable, '-c', {READY!r}], log=pathlib.Path('log'),\n"
        "    serves=lambda: True, stop_seconds=1)\n"
        "child.start(); print(child.pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path, env=environment)
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        eventually(lambda: "ready" in (tmp_path / "log").read_text())
        starter.kill()
    eventually(lambda: is_gone(pid))


async def test_its_end_is_awaited_while_the_event_loop_runs_on(make: Make, log: Path) -> None:
    child = make(READY)
    end = asyncio.create_task(child.ended())
    await asyncio.to_thread(eventually, lambda: "ready" in log.read_text())
    assert not end.done()
    await child.stopped()
    await end
    assert child.status == "signal 15 (Terminated)"


async def test_one_that_is_deaf_is_killed_while_the_event_loop_runs_on(make: Make, log: Path) -> None:
    child = make(DEAF, stop_seconds=0.2)
    await asyncio.to_thread(eventually, lambda: "ready" in log.read_text())
    await child.stopped()
    assert child.status == "signal 9 (Killed)"


def test_it_has_the_signals_of_a_program_started_by_hand(log: Path) -> None:
    command = ["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"]
    by_hand = subprocess.run(command, capture_output=True, check=True)
    program = ChildProcess("grep", command, log=log, stop_seconds=60)
    program.start()
    assert program.wait(60) == 0
    assert by_hand.stdout in log.read_bytes()


def test_a_program_that_is_missing_is_named(log: Path) -> None:
    child = ChildProcess("snake", ["no-such-program"], log=log, stop_seconds=60)
    child.start()
    child.wait(60)
    with pytest.raises(ChildFailed, match="no-such-program: No such file or directory"):
        child.check()


def test_ctrl_c_while_it_starts_does_not_reach_it() -> None:
    code = (
        "import os, signal, threading; from samserve.gateway.child_process import ChildProcess\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "def interrupt():\n"
        "    while True: os.killpg(0, signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "for _ in range(40):\n"
        "    child = ChildProcess('snake', ['true'], stop_seconds=1)\n"
        "    child.start(); child.wait(60); print(child.status, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, start_new_session=True, timeout=120)
    assert done.stdout.decode().splitlines() == ["exit status 0"] * 40
