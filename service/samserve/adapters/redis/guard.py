"""A Redis client with a time limit and a circuit breaker."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from samserve.adapters.redis.breaker import Breaker
from samserve.adapters.redis.connection import MAX_CONNECTIONS, RedisClient
from samserve.usecases.observers import CacheObserver

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 0.2
_PROBE_SECONDS = 1.0

Answer = TypeVar("Answer")


class RedisUnavailable(ConnectionError):
    """Redis gave no usable answer. This has been counted; the caller continues without Redis."""


class GuardedRedis:
    """A client behind a circuit breaker, with a time limit for each call.

    All adapters of a process share one, and with it the connections and the breaker. While the breaker is open, it
    sends a PING after each cool-down, so that the breaker closes even without traffic.

    Args:
        max_calls: limit of concurrent calls; equal to the client's number of connections.
    """

    def __init__(
        self, client: RedisClient, breaker: Breaker, observer: CacheObserver, max_calls: int = MAX_CONNECTIONS
    ) -> None:
        self._client = client
        self._breaker = breaker
        self._observer = observer
        # The pool fails calls beyond its connections. They wait here instead, so that waiting does not count as a
        # failure of Redis.
        self._free_connections = asyncio.Semaphore(max_calls)
        self._background: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None

    async def call(
        self, operation: str, budget_seconds: float, command: Callable[[RedisClient], Awaitable[Answer]]
    ) -> Answer:
        """Run one command. A call that is cancelled or exceeds its time limit drops its connection.

        Args:
            operation: name under which a failure is counted, as in `CacheObserver.redis_call`. The caller counts
                successes.

        Raises:
            RedisUnavailable: the breaker is open, the time limit is exceeded, or Redis or the connection failed.
        """
        if not self._breaker.allows():
            self._observer.redis_call(operation, "skipped")
            raise RedisUnavailable
        sent = False
        try:
            async with asyncio.timeout(budget_seconds), self._free_connections:
                sent = True
                answer = await command(self._client)
        except (TimeoutError, RedisTimeoutError) as error:
            # Waiting for a free connection means that this process is busy; it is not a failure of Redis.
            if sent:
                self._no_answer("timeout")
            self._observer.redis_call(operation, "timeout")
            raise RedisUnavailable from error
        except ResponseError as error:
            # Full, read-only or wrong type: an error, but Redis answers quickly, so the breaker does not open.
            self._breaker.succeeded()
            raise self._failed(operation, error) from error
        except Exception as error:
            # Not only RedisError: on a malformed reply, redis-py's parser raises arbitrary exceptions.
            self._no_answer(repr(error))
            raise self._failed(operation, error) from error
        self._breaker.succeeded()
        return answer

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start work that continues if the caller is cancelled. Closing cancels unfinished work after a grace
        period."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def aclose(self) -> None:
        """Give background work a moment to finish, and close the connections."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        if self._background:
            _, unfinished = await asyncio.wait(self._background, timeout=_CLOSE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._client.aclose()

    def _no_answer(self, cause: str) -> None:
        self._breaker.failed(cause)
        if self._breaker.is_open and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while self._breaker.is_open:
            await asyncio.sleep(self._breaker.cooldown_seconds)
            with contextlib.suppress(RedisUnavailable):
                await self.call("ping", _PROBE_SECONDS, lambda client: client.ping())
                self._observer.redis_call("ping", "ok")

    def _failed(self, operation: str, error: Exception) -> RedisUnavailable:
        _log.debug("redis %s failed: %r", operation, error)
        self._observer.redis_call(operation, "error")
        return RedisUnavailable()
