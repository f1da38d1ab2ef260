"""Processes and shared memory that a run leaves when it, or a server in it, is killed.

A run marks the environment of all that it starts, and the shared memory of its Tritons. A Triton that is ended while it
loads its models leaves their Python processes behind, as does one that is killed; the mark finds them, whoever their
parent is now. A gateway that is killed leaves its shared memory, which it does not hold locked any more.

    python -m stack.leftovers RUN PID SECONDS    waits for the end of a process, then ends what is left of the run
"""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "STACK_RUN"
SHARED_MEMORY = Path("/dev/shm")
TRITON_MEMORY = "triton_python_backend_shm_region_"
"""How the names of the shared memory of Triton's Python backend begin, by its own default."""

_KILL_SECONDS = 20.0
_POLL_SECONDS = 0.1


def new_run() -> str:
    """A mark for a run; as part of the run that this process belongs to, if any."""
    outer = os.environ.get(VARIABLE)
    own = secrets.token_hex(4)
    return f"{outer}.{own}" if outer else own


def triton_memory_prefix(run: str | None) -> str:
    """How the names of the shared memory of a run's Tritons begin."""
    return f"{TRITON_MEMORY}{run}_" if run else TRITON_MEMORY


def processes(run: str) -> dict[int, str]:
    """Living processes of a run and of runs within it, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # They may end meanwhile, and those of others cannot be read.
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and _is_of((folder / "environ").read_bytes(), run):
                found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    return found


def shared_memory(run: str) -> list[Path]:
    """Of a run's Tritons."""
    return [path for end in ("_*", ".*") for path in SHARED_MEMORY.glob(f"{TRITON_MEMORY}{run}{end}")]


def end(run: str, wait_seconds: float = 0.0) -> None:
    """End a run: kill its processes that do not end by themselves in this time, and remove its shared memory."""
    deadline = time.monotonic() + wait_seconds
    while (left := processes(run)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    while left and time.monotonic() < deadline + _KILL_SECONDS:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
        left = processes(run)
    for path in shared_memory(run):
        path.unlink(missing_ok=True)
    # The watcher of a run does not import Triton's client before it is needed.
    from samserve.adapters.triton.shared_memory import remove_leftovers

    remove_leftovers()


@contextlib.contextmanager
def ended_with_this_process(run: str, wait_seconds: float) -> Iterator[None]:
    """End a run, as `end` does, if this process is killed while in the block."""
    watcher = subprocess.Popen(
        [sys.executable, "-m", "stack.leftovers", run, str(os.getpid()), str(wait_seconds)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def _is_of(environment: bytes, run: str) -> bool:
    values = [each.partition(b"=")[2] for each in environment.split(b"\0") if each.startswith(f"{VARIABLE}=".encode())]
    return any(f"{value.decode(errors='replace')}.".startswith(f"{run}.") for value in values)


def main(run: str, process: int, wait_seconds: float) -> None:
    """Wait for the end of a process, then end what is left of a run."""
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(process)], [], [])
    end(run, wait_seconds)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
