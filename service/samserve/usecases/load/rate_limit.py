"""Rate limit of keyframe encodes per user."""

import asyncio
import time
from collections.abc import Callable, Hashable


class TenantRateLimiter:
    """Grants turns, evenly spaced for each user, in the order of requests.

    All that is kept of a user is when the next turn is, and that only until then.

    Args:
        max_encodes_per_second: of one user.
        clock: seconds.
    """

    def __init__(self, max_encodes_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_seconds = 1 / max_encodes_per_second
        self._clock = clock
        self._next_seconds: dict[Hashable, float] = {}

    async def turn(self, user: Hashable) -> None:
        """Wait until this user may encode another frame."""
        now = self._clock()
        self._next_seconds = {name: seconds for name, seconds in self._next_seconds.items() if seconds > now}
        at = self._next_seconds.get(user, now)
        self._next_seconds[user] = at + self._interval_seconds
        try:
            await asyncio.sleep(at - now)
        except asyncio.CancelledError:
            self.give_back(user)
            raise

    def give_back(self, user: Hashable) -> None:
        """Return a turn that was not used."""
        if user in self._next_seconds:
            self._next_seconds[user] -= self._interval_seconds
