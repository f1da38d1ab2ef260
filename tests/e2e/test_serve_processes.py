"""`samserve serve --processes`: real processes on one port, killed, replaced and stopped."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tests.support.gateway_process import PHOTO

_SECONDS = 120.0
_SERVE = [sys.executable, "-m", "samserve", "serve", "--processes", "2"]
_LOCAL = [("grpc.use_local_subchannel_pool", 1)]


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Command:
    """A command that runs in a process group of its own, as a terminal gives it one."""

    def __init__(self, log: Path, *flags: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = psutil.Popen([*_SERVE, *flags], stdout=output, stderr=output, start_new_session=True)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def gateways(self) -> list[psutil.Process]:
        """The gateway processes that run."""
        children = self.process.children()
        return [child for child in children if "samserve.gateway.worker" in " ".join(child.cmdline())]

    def until_logged(self, pattern: str, count: int = 1) -> list[str]:
        """What the pattern's group has found so many times."""

        def found() -> bool:
            assert self.process.poll() is None, self.log
            return len(re.findall(pattern, self.log)) >= count

        eventually(found, f"{pattern} is not logged {count} times")
        return re.findall(pattern, self.log)

    def until_serving(self) -> str:
        """Its address, once both gateways serve."""
        return self.until_logged(r"serving tiny .* on ([\d.:]+)", 2)[0]


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Command]:
    command = Command(folder / "log", *flags)
    try:
        yield command
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.wait()


def two_ports() -> int:
    """The first of two free ports that follow each other."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def ask(address: str) -> None:
    """A call on a connection of its own."""
    with grpc.insecure_channel(address, _LOCAL) as channel:
        SegmentationServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=_SECONDS)


def answered(metrics_port: int) -> float:
    """Calls that the gateway with this metrics port has answered; 0 while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=_SECONDS) as page:
            text = page.read().decode()
    except OSError:
        return 0.0
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    labels = {"rpc": "GetServerInfo", "code": "OK"}
    return sum(
        sample.value
        for sample in samples
        if sample.name == "samserve_requests_total" and labels.items() <= sample.labels.items()
    )


def until_both_answer(address: str, metrics_port: int) -> None:
    """Connections are spread by chance: one of many is with either gateway."""

    def both() -> bool:
        ask(address)
        return min(answered(metrics_port), answered(metrics_port + 1)) > 0

    eventually(both, "one gateway gets no calls")


def refused(*flags: str) -> str:
    """What a command that must not start says, in one line."""
    done = subprocess.run([*_SERVE, *flags], capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_calls_are_spread_a_killed_gateway_is_replaced_and_sigterm_ends_all_after_their_calls(tmp_path: Path) -> None:
    metrics_port = two_ports()
    with serving(tmp_path, "--port", "0", "--metrics-port", str(metrics_port)) as command:
        (shared,) = command.until_logged(r"processes share ([\d.:]+)")
        assert f"cannot listen on {shared}" in refused("--port", shared.rpartition(":")[2])
        address = command.until_serving()
        assert address == shared
        until_both_answer(address, metrics_port)
        assert f"cannot listen on {address}" in refused("--port", address.rpartition(":")[2])

        killed, other = command.gateways()
        killed.kill()
        killed.wait(_SECONDS)
        ask(address)
        command.until_logged(r"gateway process . exited with signal 9 \(Killed\); restarting")
        command.until_logged("serving tiny", 3)
        until_both_answer(address, metrics_port)
        assert other in command.gateways()

        with grpc.insecure_channel(address, _LOCAL) as channel:
            generation = pb.GenerateMasksRequest(
                image=pb.Image(data=PHOTO.read_bytes()), points_per_side=8, points_per_batch=1
            )
            events = SegmentationServiceStub(channel).GenerateMasks(generation, timeout=_SECONDS)
            next(events)
            gateways = command.gateways()
            command.process.send_signal(signal.SIGTERM)
            assert list(events)[-1].HasField("finished")
        assert command.process.wait(_SECONDS) == 0
        assert not any(gateway.is_running() for gateway in gateways)
        assert "Traceback" not in command.log


@pytest.mark.parametrize("moment", ["processes share", "serving tiny"])
def test_ctrl_c_in_a_terminal_ends_all_without_a_traceback(tmp_path: Path, moment: str) -> None:
    with serving(tmp_path, "--port", "0") as command:
        command.until_logged(moment)
        os.killpg(command.process.pid, signal.SIGINT)
        assert command.process.wait(_SECONDS) == 0
        assert "Traceback" not in command.log
        assert "exited with" not in command.log


def test_gateways_end_when_what_started_them_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as command:
        command.until_serving()
        family = command.process.children(recursive=True)
        command.process.kill()
        _, alive = psutil.wait_procs(family, _SECONDS)
        assert not alive
        assert "Traceback" not in command.log


def test_a_port_that_a_server_has_just_left_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    with serving(tmp_path, "--port", f"{port}") as command:
        assert command.until_serving() == f"127.0.0.1:{port}"


def test_what_keeps_one_gateway_from_starting_ends_the_command(tmp_path: Path) -> None:
    assert "manifest.json is missing" in refused("--port", "0", "--model-repository", str(tmp_path))
    with socket.socket() as taken:
        port = two_ports()
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        said = refused("--port", "0", "--metrics-port", str(port))
    assert said == f"samserve: metrics port {port + 1}: Address already in use"
