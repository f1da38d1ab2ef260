"""Admission: reject work before it is queued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from samserve.domain.errors import CapacityExceeded


class Admission:
    """Counts one kind of work in flight and rejects work above its limit.

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
        """Kind of work."""
        return self._work

    @property
    def limit(self) -> int:
        """Maximum number in flight."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """Number admitted now."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Number admitted but not yet started."""
        return self._waiting

    def check(self) -> None:
        """Check that there is capacity, without taking any.

        Raises:
            CapacityExceeded: all places are taken.
        """
        if self._in_flight >= self._limit:
            description = f"too many {self._work} in flight, the limit is {self._limit}"
            raise CapacityExceeded(description, self._retry_after_seconds, self._work)

    @contextmanager
    def admit(self) -> Iterator[Callable[[], None]]:
        """Take capacity for the duration of the context. Callers that wait for something else first call the value when
        they start.

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
