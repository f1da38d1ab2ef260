"""One program of the stack, in its own process group."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.1
_LOG_LINES = 20

# The kernel kills the program if the process that started it dies without stopping it.
_TIED = ("setpriv", "--pdeathsig", "SIGTERM", "--")


class ComponentFailed(Exception):
    """A component did not start, or ended by itself. The message names it and ends with the end of its log."""


class Component:
    """A program that serves on loopback. Start it from the main thread: it ends with the thread that started it.

    Args:
        name: for people, and of its log file.
        command: what to run.
        log: file to which its output is appended.
        serves: asks it whether it does.
        stop_seconds: how long it may take to end by itself.
        environment: what it runs in; this process's by default.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        serves: Callable[[], bool],
        stop_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._serves = serves
        self._stop_seconds = stop_seconds
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Id of the process and of its process group."""
        assert self._process is not None, f"{self.name} has not been started"
        return self._process.pid

    def start(self) -> None:
        """Start the program, or start it again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_TIED, *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_serving(self, timeout_seconds: float) -> None:
        """Wait until the component serves.

        Raises:
            ComponentFailed: it ended, or does not serve in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            self.check()
            if self._serves():
                return
            if time.monotonic() > deadline:
                raise self._failed(f"does not serve after {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Check that the program runs.

        Raises:
            ComponentFailed: it has ended by itself.
        """
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            raise self._failed(f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process of the group."""
        os.kill(self.pid, number)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for the program to end. Returns the exit code, or the negative signal number."""
        assert self._process is not None, f"{self.name} has not been started"
        return self._process.wait(timeout_seconds)

    def stop(self) -> None:
        """Stop the program gracefully, or kill it if that takes too long."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill the program and all its children."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _failed(self, what: str) -> ComponentFailed:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        log = "\n".join(f"    {line}" for line in lines) or "    (empty)"
        return ComponentFailed(f"{self.name} {what}; the end of its log:\n{log}")
