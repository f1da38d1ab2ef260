"""Admission by deadline: reject requests that could not be answered in time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from samserve.domain.errors import CapacityExceeded

_SMOOTHING = 0.05
_BUSY = 4
"""With fewer requests in flight, throughput reflects demand rather than capacity, so it is not sampled."""


class DeadlineAdmission:
    """Measures throughput, and estimates from it how long the requests in flight will take.

    By Little's law n requests in flight take n times the mean interval between ends. A caller who leaves before that
    would be worked for in vain, and is refused instead. Where few are in flight, nobody is: how fast they end is not
    known then, and what was measured before may be long past.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._interval_seconds = 0.0
        self._since: float | None = None

    @contextmanager
    def keep(self, remaining_seconds: float | None) -> Iterator[None]:
        """Count a request as in flight for the duration of the context.

        Args:
            remaining_seconds: until the caller's deadline; None where there is none.

        Raises:
            CapacityExceeded: those in flight will take longer than that; the caller may come back when they have ended.
        """
        expected_seconds = self._in_flight * self._interval_seconds
        busy = self._in_flight >= _BUSY
        if busy and remaining_seconds is not None and expected_seconds > remaining_seconds:
            raise CapacityExceeded(
                f"the requests in flight ({self._in_flight}) are expected to take {expected_seconds:.2f} s, "
                f"but the deadline expires in {max(0.0, remaining_seconds):.2f} s",
                expected_seconds,
                "deadline",
            )
        self._in_flight += 1
        if self._in_flight == _BUSY:
            self._since = self._clock()
        try:
            yield
            self._end()
        finally:
            self._in_flight -= 1
            if self._in_flight < _BUSY:
                self._since = None

    def _end(self) -> None:
        if self._since is None:
            return
        now = self._clock()
        interval, self._since = now - self._since, now
        weight = _SMOOTHING if self._interval_seconds else 1.0
        self._interval_seconds += weight * (interval - self._interval_seconds)
