"""Refusing work before it is queued."""

from collections.abc import Iterator
from contextlib import contextmanager

from samserve.domain.errors import Overloaded


class Admission:
    """Counts one kind of work in flight and refuses more than its limit.

    Args:
        work: what is counted, in the plural; for the error message.
        limit: how many may be in flight at once, waiting ones included.
        retry_after_seconds: what refused callers are told to wait.
    """

    def __init__(self, work: str, limit: int, retry_after_seconds: float) -> None:
        self._work = work
        self._limit = limit
        self._retry_after_seconds = retry_after_seconds
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """How many are admitted now."""
        return self._in_flight

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place.

        Raises:
            Overloaded: all places are taken.
        """
        if self._in_flight >= self._limit:
            raise Overloaded(f"{self._in_flight} {self._work} are in flight, the limit", self._retry_after_seconds)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
