"""A lease in Redis on the encoding of an image, so that only one gateway encodes it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samserve.adapters.redis.guard import GuardedRedis, RedisUnavailable
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.observers import CacheObserver

KEY_PREFIX = "samserve:lease:"

# Both scripts act only while the lease is still the caller's: it may have expired and belong to another gateway.
_EXTEND = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class RedisEncodeLease:
    """An `EncodeLease` of keys `samserve:lease:<key>`, which only their holder extends and deletes.

    If Redis does not answer, every gateway gets the lease: encoding an image twice is better than not at all.

    Not redis-py's `Lock`: that keeps its token only once Redis has answered. It could not give back an acquisition that
    was cancelled or timed out here although Redis carried it out, and the others would wait for the whole TTL.

    Args:
        ttl_seconds: how long others wait for a holder that died. A live holder extends the lease three times in this
            time.
        budget_seconds: time limit for acquiring and for releasing.
    """

    def __init__(
        self, redis: GuardedRedis, observer: CacheObserver, ttl_seconds: float = 10.0, budget_seconds: float = 0.05
    ) -> None:
        self._redis = redis
        self._observer = observer
        self._ttl_seconds = ttl_seconds
        self._ttl_milliseconds = round(ttl_seconds * 1000)
        self._budget_seconds = budget_seconds

    @asynccontextmanager
    async def try_acquire(self, key: EmbeddingKey) -> AsyncIterator[bool]:
        """Try to acquire the lease. The value of the context is True if it was granted."""
        name, token = KEY_PREFIX + key, secrets.token_hex(16)
        granted = True
        renewal: asyncio.Task[None] | None = None
        try:
            granted = await self._acquire(name, token)
            if granted:
                renewal = self._redis.in_background(self._renew(name, token))
            yield granted
        finally:
            if renewal is not None:
                renewal.cancel()
            # Also after a cancelled or unanswered acquisition, which Redis may have executed nevertheless.
            if granted:
                await asyncio.shield(self._redis.in_background(self._release(name, token)))

    async def _acquire(self, name: str, token: str) -> bool:
        try:
            answer = await self._redis.call(
                "lease",
                self._budget_seconds,
                lambda client: client.set(name, token, nx=True, px=self._ttl_milliseconds),
            )
        except RedisUnavailable:
            return True
        self._observer.redis_call("lease", "ok" if answer else "busy")
        return bool(answer)

    async def _renew(self, name: str, token: str) -> None:
        still_held = True
        while still_held:
            await asyncio.sleep(self._ttl_seconds / 3)
            try:
                extended = await self._redis.call(
                    "lease",
                    self._budget_seconds,
                    lambda client: client.eval(_EXTEND, 1, name, token, str(self._ttl_milliseconds)),
                )
            except RedisUnavailable:
                continue
            still_held = bool(extended)

    async def _release(self, name: str, token: str) -> None:
        try:
            await self._redis.call("lease", self._budget_seconds, lambda client: client.eval(_DELETE, 1, name, token))
        except RedisUnavailable:
            return
