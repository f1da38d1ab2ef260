"""Child processes: start, wait until they serve, stop or kill."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.1
_LOG_LINES = 20

# Runs a command that gets SIGTERM from the kernel when its parent dies without stopping it. A `preexec_fn` could
# deadlock in a process with threads. Python ignores two signals that other programs expect by default.
_TIED = """\
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit("the parent process has ended")
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
try:
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""


class ChildFailed(Exception):
    """A child did not start, or ended by itself. The message names it and ends with the end of its log.

    Attributes:
        reason: the message without the log.
        log: the end of its log.
    """

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(f"{reason}; the end of its log:\n{log}")
        self.reason = reason
        self.log = log


class ChildProcess:
    """A program in a process group of its own.

    Start it from the main thread: on Linux it is told to end (SIGTERM) when the thread that started it ends, also by
    SIGKILL. Children of its own end with it if they are in its group.

    Args:
        name: for people.
        command: what to run.
        stop_seconds: how long it may take to end after SIGTERM.
        serves: asks it whether it does.
        log: file to which its output is appended; by default it writes where this process does.
        environment: what it runs in; this process's by default.
        inherited: file descriptors that it gets.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        stop_seconds: float,
        serves: Callable[[], bool] = lambda: True,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command = command
        self._stop_seconds = stop_seconds
        self._serves = serves
        self._log = log
        self._environment = environment
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self._group_runs = False

    @property
    def pid(self) -> int:
        """Id of the process and of its process group."""
        return self._started().pid

    @property
    def status(self) -> str:
        """How it ended: `exit status 1` or `signal 9 (Killed)`."""
        code = self._started().wait()
        return f"exit status {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"

    def start(self) -> None:
        """Start the program, or start it again."""
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())]
        with Path(os.devnull if self._log is None else self._log).open("ab") as log:
            output = None if self._log is None else log
            # A Ctrl-C between fork and setsid would end the child alone. The launcher drops it and unblocks the signal.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._process = subprocess.Popen(
                    [*tied, *self._command],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=self._inherited,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._group_runs = True

    def await_serving(self, timeout_seconds: float) -> None:
        """Wait until the program serves.

        Raises:
            ChildFailed: it ended, or does not serve in time.
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
            ChildFailed: it has ended by itself.
        """
        if self._process is not None and self._process.poll() is not None:
            raise self._failed(f"ended with {self.status}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process of the group."""
        os.kill(self.pid, number)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for the program to end. Returns the exit code, or the negative signal number."""
        return self._started().wait(timeout_seconds)

    async def ended(self) -> None:
        """Wait for the program to end, while the event loop runs on."""
        process = self._started()
        # A process that has ended stays known by its number until `poll` or `wait` asks for its status.
        if process.returncode is None:
            file = os.pidfd_open(process.pid)
            try:
                await readable(file)
            finally:
                os.close(file)

    def stop(self) -> None:
        """Stop the program gracefully, or kill it if that takes too long."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_seconds)
        self.kill()

    async def stopped(self) -> None:
        """Stop or kill the program likewise, while the event loop runs on."""
        self._started().terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_seconds):
                await self.ended()
        self.kill()

    def kill(self) -> None:
        """Kill the program and all its children."""
        if self._group_runs:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._started().wait()
            self._group_runs = False

    def log_tail(self) -> str:
        """The last lines of its log."""
        lines = [] if self._log is None else self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (empty)"

    def _started(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, f"{self.name} has not been started"
        return self._process

    def _failed(self, what: str) -> ChildFailed:
        return ChildFailed(f"{self.name} {what}", self.log_tail())


async def readable(file: int) -> None:
    """Wait until there is something to read from a file descriptor, or the other side has gone."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(file, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(file)
