"""A circuit breaker: stops asking something that does not answer."""

import logging
import time
from collections.abc import Callable

from samserve.usecases.observers import CacheObserver

_log = logging.getLogger(__name__)


class Breaker:
    """Opens after `failures_to_open` failures in a row; while open, lets one caller through each `cooldown_seconds`.

    Any success closes it. A caller who was let through owes it no report: one who was cancelled learned nothing, and a
    cool-down later the next one is let through.
    """

    def __init__(
        self,
        observer: CacheObserver,
        failures_to_open: int = 5,
        cooldown_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observer = observer
        self._failures_to_open = failures_to_open
        self.cooldown_seconds = cooldown_seconds
        self._clock = clock
        self._failures_in_a_row = 0
        self._next_probe_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are skipped."""
        return self._next_probe_at is not None

    def allows(self) -> bool:
        """Whether the caller may make a call now. True while open makes the caller the probe."""
        if self._next_probe_at is None:
            return True
        now = self._clock()
        if now < self._next_probe_at:
            return False
        self._next_probe_at = now + self.cooldown_seconds
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures_in_a_row = 0
        if self._next_probe_at is not None:
            self._next_probe_at = None
            _log.info("Redis breaker closed: Redis answers again")
            self._observer.breaker(False)

    def failed(self, cause: str) -> None:
        """A call was not answered, because of `cause`."""
        self._failures_in_a_row += 1
        if self._next_probe_at is None and self._failures_in_a_row >= self._failures_to_open:
            self._next_probe_at = self._clock() + self.cooldown_seconds
            _log.warning(
                "Redis breaker opened after %d consecutive failures, the last: %s", self._failures_in_a_row, cause
            )
            self._observer.breaker(True)
