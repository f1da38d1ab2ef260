"""The embedding cache in Redis, shared by all gateways."""

from samserve.adapters.redis.guard import GuardedRedis, RedisUnavailable
from samserve.domain.embedding import Embedding, RejectedEmbedding, pack, unpack
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest
from samserve.usecases.observers import CacheObserver
from samserve.usecases.ports import CachedEmbedding, EmbeddingSource

KEY_PREFIX = "samserve:embedding:"


class RedisEmbeddingCache:
    """An `EmbeddingCache` of packed embeddings under `samserve:embedding:<key>`, which expire after `ttl_seconds`.

    Any failure of Redis, and any invalid value, counts as a miss or a lost write.

    Args:
        budget_seconds: time limit of a `get`, including connecting.
        put_budget_seconds: time limit of a `put`, which no caller should wait for.
        max_pending_puts: further writes are dropped, so that a slow Redis does not accumulate embeddings in memory.
    """

    def __init__(
        self,
        redis: GuardedRedis,
        manifest: ModelManifest,
        observer: CacheObserver,
        ttl_seconds: float = 24 * 3600.0,
        budget_seconds: float = 0.05,
        put_budget_seconds: float = 1.0,
        max_pending_puts: int = 4,
    ) -> None:
        self._redis = redis
        self._manifest = manifest
        self._observer = observer
        self._ttl_milliseconds = round(ttl_seconds * 1000)
        self._budget_seconds = budget_seconds
        self._put_budget_seconds = put_budget_seconds
        self._max_pending_puts = max_pending_puts
        self._pending_puts = 0

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        """Return the embedding of this key, or None if there is none or `unpack` rejects it."""
        name = KEY_PREFIX + key
        try:
            data = await self._redis.call("get", self._budget_seconds, lambda client: client.get(name))
        except RedisUnavailable:
            return None
        if not isinstance(data, bytes):
            self._observer.redis_call("get", "miss")
            return None
        try:
            embedding = unpack(data, key, self._manifest)
        except RejectedEmbedding as rejection:
            self._observer.redis_call("get", "rejected")
            self._observer.rejected(rejection.reason)
            self._redis.in_background(self._delete(name))
            return None
        self._observer.redis_call("get", "ok")
        return CachedEmbedding(embedding, EmbeddingSource.REDIS)

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Store an embedding, replacing that of the same key."""
        if self._pending_puts >= self._max_pending_puts:
            self._observer.redis_call("put", "skipped")
            return
        self._pending_puts += 1
        try:
            name, data = KEY_PREFIX + key, pack(embedding, key, self._manifest)
            await self._redis.call(
                "put", self._put_budget_seconds, lambda client: client.set(name, data, px=self._ttl_milliseconds)
            )
        except RedisUnavailable:
            return
        finally:
            self._pending_puts -= 1
        self._observer.redis_call("put", "ok")

    async def _delete(self, name: str) -> None:
        try:
            await self._redis.call("delete", self._budget_seconds, lambda client: client.unlink(name))
        except RedisUnavailable:
            return
        self._observer.redis_call("delete", "ok")
