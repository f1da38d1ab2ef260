"""A real Triton."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from stack import leftovers
from stack.triton_server import TritonInstallation
from tests.support import waiting

_START_SECONDS = 90.0
_PORT_ATTEMPTS = 5


class TritonServer:
    """A `tritonserver` process of the test's own, that can be made to die and to hang."""

    def __init__(self, installation: TritonInstallation, repository: Path, log: Path, *options: str) -> None:
        self._installation = installation
        self._repository = repository
        self._log = log
        self._options = options
        self._run = leftovers.new_run()
        self._process: subprocess.Popen[bytes] | None = None
        self._port, self._metrics_port = _free_port(), _free_port()

    @property
    def address(self) -> str:
        """Of gRPC."""
        return f"127.0.0.1:{self._port}"

    @property
    def metrics_address(self) -> str:
        """Of what Prometheus reads."""
        return f"127.0.0.1:{self._metrics_port}"

    def start(self, repository: Path | None = None) -> None:
        """Start it, on another repository if one is given, and wait until it serves."""
        self._repository = repository or self._repository
        for _ in range(_PORT_ATTEMPTS):
            command = self._installation.command(self._repository, self._port, self._metrics_port, run=self._run)
            command += self._options
            with self._log.open("ab") as log:
                environment = {**self._installation.environment(), leftovers.VARIABLE: self._run}
                self._process = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            if self._serves():
                return
            self.kill()
            if "Address already in use" not in self._log.read_text():
                break
        pytest.fail(f"Triton does not start; see {self._log}", pytrace=False)

    def kill(self) -> None:
        """End it at once, also while it hangs, and its Python backends with it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            leftovers.end(self._run)

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            # Also when it has ended: one that did not wait for its models leaves their processes.
            self.kill()

    def pause(self) -> None:
        """Make it hang: connections stay, and nothing answers.

        Not its Python backends: Triton 2.51 aborts if it goes on before they do and finds their locks held.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Make it go on, and its models."""
        assert self._process is not None
        self.open_gates()
        self._process.send_signal(signal.SIGCONT)

    def open_gates(self) -> None:
        """End what `pause_model` did."""
        for gate in self._repository.glob("*/gate"):
            gate.unlink()

    def pause_model(self, model: str) -> None:
        """Make one model's runs take until `resume`; Triton itself goes on, and what comes in is queued."""
        folder = self._repository / model
        (folder / "held").unlink(missing_ok=True)
        (folder / "gate").touch()

    async def holds(self, model: str) -> None:
        """Wait until a model that was paused has a run to hold."""
        await eventually((self._repository / model / "held").exists)

    def counted(self, name: str, **labels: str) -> int:
        """The sum of a metric's values over the labels that are not given."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in lines
            if line.startswith(f"{name}{{") and all(label in line for label in wanted)
        )

    def _serves(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return True  # Triton listens once its models are warm
        return False


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition on Triton, which is asked beside the event loop."""
    await waiting.eventually(lambda: asyncio.to_thread(condition))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
