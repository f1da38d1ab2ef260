"""Refusing work before it is queued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from samserve.domain.errors import CapacityExceeded


class Admission:
    """Counts one kind of work in flight and refuses more than its limit.

    Args:
        work: what is counted, one of `LIMITS`.
        limit: how many may be in flight at once, waiting ones included.
        retry_after_seconds: what refused callers are told to wait.
    """

    def __init__(self, work: str, limit: int, retry_after_seconds: float) -> None:
        self._work = work
        self._limit = limit
        self._retry_after_seconds = retry_after_seconds
        self._in_flight = 0
        self._waiting = 0

    @property
    def work(self) -> str:
        """What is counted."""
        return self._work

    @property
    def limit(self) -> int:
        """How many may be in flight at once."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """How many are admitted now."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many of them have not said that they began."""
        return self._waiting

    def check(self) -> None:
        """Ask whether there is a place, without taking one.

        Raises:
            CapacityExceeded: all places are taken.
        """
        if self._in_flight >= self._limit:
            description = f"too many {self._work} in flight, the limit is {self._limit}"
            raise CapacityExceeded(description, self._retry_after_seconds, self._work)

    @contextmanager
    def admit(self) -> Iterator[Callable[[], None]]:
        """Hold one place. The value is to be called, by those who wait for something else first, when they begin.

        Raises:
            CapacityExceeded: all places are taken.
        """
        self.check()
        self._in_flight += 1
        self._waiting += 1
        has_begun = False

        def begin() -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                self._waiting -= 1

        try:
            yield begin
        finally:
            begin()
            self._in_flight -= 1
