"""Deduplicate concurrent computations of the same key."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.waiters = 0


class SingleFlight(Generic[T]):
    """Coalesces concurrent work by key within this process.

    The work runs in a task of its own: a caller who is cancelled leaves the others unharmed, whether it came first or
    not. Work that nobody waits for any more is cancelled. A failure reaches all who wait; the next caller tries anew.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    async def join(self, key: str, lead: Callable[[Callable[[T], None]], Awaitable[None]]) -> tuple[T, bool]:
        """Wait for the computation of this key, and start it if it is not running.

        Args:
            key: what is made.
            lead: makes it and passes it on by calling its argument once; what it does after that delays nobody.

        Returns:
            What was made, and whether this caller was the one that had it started.
        """
        flight = self._flights.get(key)
        led = flight is None
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._fly(key, flight, lead))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.result), led
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.result.done():
                self._land(key, flight)
                flight.task.cancel()  # type: ignore[union-attr]

    async def close(self) -> None:
        """Cancel all running computations and wait until they have ended."""
        tasks = [flight.task for flight in self._flights.values() if flight.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fly(self, key: str, flight: _Flight[T], lead: Callable[[Callable[[T], None]], Awaitable[None]]) -> None:
        try:
            await lead(flight.result.set_result)
            if not flight.result.done():
                raise RuntimeError(f"the work for {key} ended without a result")
        except asyncio.CancelledError:
            flight.result.cancel()
            raise
        except Exception as error:
            if flight.result.done():
                _log.exception("work that followed the result failed")
            else:
                flight.result.set_exception(error)
        finally:
            self._land(key, flight)

    def _land(self, key: str, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
