"""A command and all its descendants, which are killed together."""

import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from stack import leftovers

TERMINATE_SECONDS = 10.0


class ProcessSession:
    """A process that may start others. On exit all of them are killed and their shared memory is removed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.run = leftovers.new_run()
        self._command = command
        self._environment = {**environment, leftovers.VARIABLE: self.run}

    def __enter__(self) -> "ProcessSession":
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        return self

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    def wait(self, deadline: float) -> int | None:
        """Wait for the exit code. Returns None if the process still runs at the deadline, by `time.monotonic`."""
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TERMINATE_SECONDS)
        leftovers.end(self.run)
        self._process.wait()
