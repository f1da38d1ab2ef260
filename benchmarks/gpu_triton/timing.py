"""Timing of calls: alternately, and by concurrent callers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

Call = Callable[[], Awaitable[object]]

WARM_UP_ROUNDS = 2
MIN_ROUNDS = 1
MAX_ROUNDS = 500


async def by_turns(calls: Mapping[str, Call], seconds: float) -> dict[str, list[float]]:
    """Time the calls alternately, so that changes of the machine's speed affect all. Returns the times of each call.

    Args:
        seconds: when to stop, once there have been `MIN_ROUNDS` rounds beside those that warm up.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP_ROUNDS):
        for call in calls.values():
            await call()
    end = time.monotonic() + seconds
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.monotonic() > end:
            break
        for name, call in calls.items():
            started = time.perf_counter()
            await call()
            times[name].append(time.perf_counter() - started)
    return times


async def at_once(call: Call, callers: int, seconds: float) -> tuple[list[float], float]:
    """Run concurrent callers in closed loops. Returns the times of all calls, and calls per second.

    Each caller calls once to warm up, and then at least once; a call that is under way when the time is up counts.
    """
    await asyncio.gather(*(call() for _ in range(callers)))
    times: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def caller() -> None:
        while True:
            started = time.perf_counter()
            await call()
            times.append(time.perf_counter() - started)
            if time.perf_counter() > end:
                return

    await asyncio.gather(*(caller() for _ in range(callers)))
    return times, len(times) / (time.perf_counter() - begun)
