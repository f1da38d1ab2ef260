"""Waiting for a condition in place of a fixed time."""

import asyncio
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.005
_ROUNDS = 25


async def eventually(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until a condition holds that no event reports.

    Raises:
        TimeoutError: it did not hold for so long.
    """
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(_POLL_SECONDS)


async def settled() -> None:
    """Let every task of this event loop run until it waits for a timer, for I/O or for the test.

    Work in the loop's default thread pool counts as running. A step that a task has not taken by then is one that it
    does not take by itself, so a test can assert that something did not happen.
    """
    for _ in range(_ROUNDS):
        await asyncio.to_thread(int)
        for _ in range(5):
            await asyncio.sleep(0)
