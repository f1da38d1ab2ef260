"""A Redis client that answers in time or says that it did not."""

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
    """Redis gave no answer to use. It has been counted; the caller goes on without."""


class GuardedRedis:
    """A client behind a breaker, each call within a time budget.

    All of a process's adapters share one, and with it the connections and the breaker. While the breaker is open, it
    sends a PING after each cool-down, so that the breaker also closes without traffic.

    Args:
        max_calls: at a time, as many as the client may have connections.
    """

    def __init__(
        self, client: RedisClient, breaker: Breaker, observer: CacheObserver, max_calls: int = MAX_CONNECTIONS
    ) -> None:
        self._client = client
        self._breaker = breaker
        self._observer = observer
        # The pool refuses calls beyond its connections. They wait here, where waiting is told from Redis failing.
        self._free_connections = asyncio.Semaphore(max_calls)
        self._background: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None

    async def call(
        self, operation: str, budget_seconds: float, command: Callable[[RedisClient], Awaitable[Answer]]
    ) -> Answer:
        """Run one command. A call that is cancelled or out of time gives its connection up.

        Args:
            operation: under which a failure is counted, see `CacheObserver.redis_call`. Success the caller counts.

        Raises:
            RedisUnavailable: the breaker is open, the time is up, or Redis or the way to it failed.
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
            # Waiting for a free connection says that this process is busy, and nothing about Redis.
            if sent:
                self._no_answer("timeout")
            self._observer.redis_call(operation, "timeout")
            raise RedisUnavailable from error
        except ResponseError as error:
            # Full, read-only, wrong type: at fault, but it answers, so that asking again costs no waiting.
            self._breaker.succeeded()
            raise self._failed(operation, error) from error
        except Exception as error:
            # Not only RedisError: a garbled reply raises whatever redis-py's parser stumbles over.
            self._no_answer(repr(error))
            raise self._failed(operation, error) from error
        self._breaker.succeeded()
        return answer

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start work that goes on when the caller is cancelled. Closing cancels what does not end by itself."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def aclose(self) -> None:
        """Let background work end, for a moment, and close the connections."""
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
