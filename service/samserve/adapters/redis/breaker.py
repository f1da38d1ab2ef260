"""A circuit breaker: stops calls to a server that does not answer."""

import logging
import time
from collections.abc import Callable

from samserve.usecases.observers import CacheObserver

_log = logging.getLogger(__name__)


class Breaker:
    """Opens after `failures_to_open` consecutive failures. While open, it allows one call every `cooldown_seconds`.

    Any success closes it. An allowed caller does not have to report a result: a cancelled call has none, and after
    another cool-down the next call is allowed.
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
        """True while calls are skipped."""
        return self._next_probe_at is not None

    def allows(self) -> bool:
        """Return True if the caller may make a call now. While the breaker is open, such a call is the probe."""
        if self._next_probe_at is None:
            return True
        now = self._clock()
        if now < self._next_probe_at:
            return False
        self._next_probe_at = now + self.cooldown_seconds
        return True

    def succeeded(self) -> None:
        """Report that a call was answered."""
        self._failures_in_a_row = 0
        if self._next_probe_at is not None:
            self._next_probe_at = None
            _log.info("Redis breaker closed: Redis answers again")
            self._observer.breaker(False)

    def failed(self, cause: str) -> None:
        """Report that a call was not answered, because of `cause`."""
        self._failures_in_a_row += 1
        if self._next_probe_at is None and self._failures_in_a_row >= self._failures_to_open:
            self._next_probe_at = self._clock() + self.cooldown_seconds
            _log.warning(
                "Redis breaker opened after %d consecutive failures, the last: %s", self._failures_in_a_row, cause
            )
            self._observer.breaker(True)
