"""A command and all its descendants in their own process session, which are killed together."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

SHARED_MEMORY = Path("/dev/shm")
BACKEND_MEMORY = "triton_python_backend_shm_region_"
GATEWAY_MEMORY = "samserve-"
POLL_SECONDS = 0.25
TERMINATE_SECONDS = 10.0


class ProcessSession:
    """A process that may start others. On exit all of them are killed and their shared memory is removed.

    A Triton that is killed leaves the shared memory of its Python backends, whose command lines name it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._memory: set[Path] = set()

    def __enter__(self) -> "ProcessSession":
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        return self

    @property
    def pid(self) -> int:
        """Of the command, and of the process session."""
        return self._process.pid

    def wait(self, deadline: float) -> int | None:
        """Wait for the exit code. Returns None if the process still runs at the deadline, measured by
        `time.monotonic`."""
        while time.monotonic() < deadline:
            self._memory |= backend_memory(self._process.pid)
            try:
                return self._process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._memory |= backend_memory(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TERMINATE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for segment in self._memory:
            segment.unlink(missing_ok=True)
        remove_gateway_memory()


def backend_memory(session: int) -> set[Path]:
    """Find the shared memory of the Triton backends in a process session."""
    segments = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(process.name)) == session:
                arguments = (process / "cmdline").read_text().split("\0")
                segments |= {SHARED_MEMORY / name for name in arguments if name.startswith(BACKEND_MEMORY)}
    return segments


def remove_gateway_memory() -> None:
    """Remove the segments of killed gateways. A running gateway holds a lock on its segment."""
    for path in SHARED_MEMORY.glob(f"{GATEWAY_MEMORY}*"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
