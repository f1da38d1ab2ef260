"""Thread pools for computations next to the event loop."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

_NICENESS = 5


def available_cores() -> int:
    """Number of cores that this process may run on. A container's CPU quota is not taken into account."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def compute_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Create threads with a lower OS priority than the event loop.

    Under overload every core computes. A loop that took its turn among those threads would accept calls more slowly
    than they come, and even refusals would wait for seconds. So the kernel runs the loop first, whenever it has work.

    Args:
        count: how many run at a time.
        name: prefix of the threads' names.
    """
    if sys.platform != "linux":  # on other systems, niceness applies to the whole process
        return ThreadPoolExecutor(count, thread_name_prefix=name)
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=os.nice, initargs=(_NICENESS,))
