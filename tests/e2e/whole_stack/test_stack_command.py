"""`python -m stack`, as `make stack` runs it: what it prints, and that nothing of it is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from samserve.client import Client
from stack import leftovers
from stack.ports import Ports, PortTaken, address
from tests.support.whole_stack import eventually

END_SECONDS = 120.0
RUN = leftovers.new_run()


def flags(ports: Ports) -> list[str]:
    return [
        f"--envoy={ports.envoy}",
        f"--envoy-admin={ports.envoy_admin}",
        f"--gateways={','.join(map(str, ports.gateways))}",
        f"--gateway-metrics={','.join(map(str, ports.gateway_metrics))}",
        f"--triton={ports.triton}",
        f"--triton-metrics={ports.triton_metrics}",
        f"--redis={ports.redis}",
        f"--prometheus={ports.prometheus}",
    ]


def is_left(ports: Ports) -> bool:
    """Whether anything listens, runs or lies in shared memory."""
    try:
        ports.check_free()
    except PortTaken:
        return True
    return bool(leftovers.processes(RUN) or leftovers.shared_memory(RUN))


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def own_ports() -> Ports:
    return Ports.free()


@pytest.fixture
def run(own_ports: Ports) -> Iterator[Run]:
    """Starts the command."""
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "stack", *flags(own_ports)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, leftovers.VARIABLE: RUN, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=END_SECONDS)
        process.kill()


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What it prints, as far as the line with this text."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"it ended without a word of {text!r}: {read}")


def test_it_serves_says_where_and_leaves_nothing_behind(run: Run, own_ports: Ports) -> None:
    process = run()
    printed = read_until(process, "Ctrl-C")
    names = [line.split()[0] for line in printed.splitlines() if "serves after" in line]
    assert names == ["redis", "triton", "gateway-1", "gateway-2", "envoy", "prometheus"]
    for port in (own_ports.envoy, *own_ports.gateways, own_ports.prometheus):
        assert address(port) in printed
    with Client(address(own_ports.envoy)) as client:
        assert client.healthy()
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=END_SECONDS)
    assert (process.returncode, printed, complaints) == (0, "stopped\n", "")
    assert not is_left(own_ports)


def test_a_part_that_cannot_start_is_named_with_its_log_and_the_others_end(run: Run, own_ports: Ports) -> None:
    process = run(SAMSERVE_MAX_REQUESTS="none")
    _, complaints = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 1
    assert "gateway-1 ended with exit status 2; the end of its log:" in complaints
    assert "--max-requests (SAMSERVE_MAX_REQUESTS)" in complaints
    assert "Traceback" not in complaints
    assert not is_left(own_ports)


def test_sigterm_while_it_starts_leaves_nothing_behind(run: Run, own_ports: Ports) -> None:
    process = run()
    read_until(process, "redis")
    process.terminate()
    process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0
    assert not is_left(own_ports)


def test_killed_it_takes_its_parts_with_it(run: Run, own_ports: Ports) -> None:
    process = run()
    read_until(process, "redis")
    process.kill()
    eventually(lambda: not is_left(own_ports), "nothing is left")
