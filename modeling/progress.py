"""Progress and cost of long steps."""

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Tell = Callable[[str], None]

SIGN_OF_LIFE_SECONDS = 30.0


@contextmanager
def step(title: str) -> Iterator[Tell]:
    """Write the step's title to stderr when it starts, and its time and peak memory when it ends.

    Yields a function that takes how far the step is; every half minute that is written, with the seconds so far.
    """
    latest = ""
    start = time.monotonic()
    ended = threading.Event()

    def tell(progress: str) -> None:
        nonlocal latest
        latest = progress

    def show_life() -> None:
        while not ended.wait(SIGN_OF_LIFE_SECONDS):
            seconds = f"{time.monotonic() - start:.0f} s"
            print(f"[{', '.join(filter(None, (seconds, latest)))}]", end=" ", file=sys.stderr, flush=True)

    _forget_peak_memory()
    print(f"{title} ...", end=" ", file=sys.stderr, flush=True)
    life = threading.Thread(target=show_life, daemon=True)
    life.start()
    try:
        yield tell
    except BaseException:
        print("failed", file=sys.stderr, flush=True)
        raise
    finally:
        ended.set()
        life.join()
    print(f"{time.monotonic() - start:.1f} s, peak {peak_memory_gb():.1f} GB", file=sys.stderr, flush=True)


def peak_memory_gb() -> float:
    """Peak memory of this process in GB (10⁹ bytes): of the latest step on Linux, otherwise since its start."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux reports KiB, macOS bytes.
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def _forget_peak_memory() -> None:
    """Reset the kernel's peak counter (Linux; see proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
