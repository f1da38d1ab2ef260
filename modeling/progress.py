"""What a long step costs, told while it runs."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(title: str) -> Iterator[None]:
    """Write the step's title to stderr when it begins, and its seconds and the memory's peak so far when it ends."""
    print(f"{title} ...", end=" ", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr, flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s, peak {peak_memory_gb():.1f} GB", file=sys.stderr, flush=True)


def peak_memory_gb() -> float:
    """The most memory that this process has held at once, in GB (10⁹ bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
