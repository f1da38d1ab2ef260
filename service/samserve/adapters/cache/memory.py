"""A cache of recently used embeddings in the memory of this process."""

from collections import OrderedDict

import numpy as np

from samserve.domain.embedding import Embedding
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.observers import CacheObserver
from samserve.usecases.ports import CachedEmbedding, EmbeddingSource


class MemoryEmbeddingCache:
    """An `EmbeddingCache` that evicts the least recently used embeddings when their values exceed `max_bytes`.

    It stores copies, and returned embeddings are read-only. Not thread-safe: use it from one event loop.
    """

    def __init__(self, max_bytes: int, observer: CacheObserver) -> None:
        self._max_bytes = max_bytes
        self._observer = observer
        self._entries: OrderedDict[EmbeddingKey, Embedding] = OrderedDict()
        self._nbytes = 0
        self._report(0)

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        """Return the embedding of this key, which becomes the most recently used, or None."""
        embedding = self._entries.get(key)
        if embedding is None:
            return None
        self._entries.move_to_end(key)
        return CachedEmbedding(embedding, EmbeddingSource.MEMORY)

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Store an embedding as the most recently used, replacing that of the same key.

        An embedding larger than the whole cache is not stored.
        """
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self._nbytes -= replaced.nbytes
        evicted = 0
        if embedding.nbytes <= self._max_bytes:
            evicted = self._make_room(embedding.nbytes)
            self._entries[key] = _frozen_copy(embedding)
            self._nbytes += embedding.nbytes
        self._report(evicted)

    def _report(self, evicted: int) -> None:
        self._observer.memory(len(self._entries), self._nbytes, self._max_bytes, evicted)

    def _make_room(self, nbytes: int) -> int:
        evicted = 0
        while self._nbytes + nbytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._nbytes -= oldest.nbytes
            evicted += 1
        return evicted


def _frozen_copy(embedding: Embedding) -> Embedding:
    # A view would keep its whole batch in memory, uncounted, and would change with it.
    values = embedding.values
    frozen = np.frombuffer(values.tobytes(), dtype=values.dtype).reshape(values.shape)
    return Embedding(frozen, embedding.frame)
