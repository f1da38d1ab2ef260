"""A cache of two tiers."""

from samserve.domain.embedding import Embedding
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.ports import CachedEmbedding, EmbeddingCache


class TieredEmbeddingCache:
    """An `EmbeddingCache` that looks in `first`, then in `second`, and copies what it finds in `second` to `first`."""

    def __init__(self, first: EmbeddingCache, second: EmbeddingCache) -> None:
        self._first = first
        self._second = second

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        """Return the embedding of this key from either tier, with the name of the tier, or None."""
        hit = await self._first.get(key)
        if hit is not None:
            return hit
        hit = await self._second.get(key)
        if hit is not None:
            await self._first.put(key, hit.embedding)
        return hit

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Store in both tiers. It is in the first tier before this call waits for the second."""
        await self._first.put(key, embedding)
        await self._second.put(key, embedding)
