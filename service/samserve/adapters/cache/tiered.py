"""Two caches as one: a near one before a far one."""

from samserve.domain.embedding import Embedding
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.ports import CachedEmbedding, EmbeddingCache


class TieredEmbeddingCache:
    """An `EmbeddingCache` that asks `first`, then `second`, and remembers in `first` what it found in `second`."""

    def __init__(self, first: EmbeddingCache, second: EmbeddingCache) -> None:
        self._first = first
        self._second = second

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        """The embedding stored under this key in either tier, with the tier that it was found in; or None."""
        hit = await self._first.get(key)
        if hit is not None:
            return hit
        hit = await self._second.get(key)
        if hit is not None:
            await self._first.put(key, hit.embedding)
        return hit

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Store in both tiers. The first has it before this call first waits for the second."""
        await self._first.put(key, embedding)
        await self._second.put(key, embedding)
