"""The memory tier of the cache, in memory that Triton can read."""

from collections import deque
from functools import partial

import numpy as np

from samserve.adapters.triton.shared_memory import SharedMemory, when_unused
from samserve.adapters.triton.slots import SlotTable
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.observers import CacheObserver
from samserve.usecases.ports import CachedEmbedding, EmbeddingSource


class SlabEmbeddingCache:
    """An `EmbeddingCache` with a fixed number of slots in shared memory. The least recently used slots are reused.

    What it hands out is a read-only view of the slot, not a copy. A slot is not written to while such a view is left;
    where that is so of all of them, an embedding is not stored. One event loop uses it.

    Args:
        memory: holds the slots, from its start on.
        shape: of the embeddings of the one model that it serves.
    """

    def __init__(self, memory: SharedMemory, slots: int, shape: tuple[int, int, int], observer: CacheObserver) -> None:
        self._memory = memory
        self._shape = shape
        self._nbytes = slot_nbytes(shape)
        self._observer = observer
        self._table: SlotTable[EmbeddingKey] = SlotTable(slots)
        self._frames: dict[EmbeddingKey, ImageFrame] = {}
        # Views may be released in any thread and at any point of this code. The deque records it until the next call.
        self._given_back: deque[int] = deque()
        self._max_bytes = slots * self._nbytes
        self._report(0)

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        """Return the embedding of this key, which becomes the most recently used, or None."""
        slot = self._table.find(key)
        if slot is None:
            return None
        self._table.lend(slot)
        values = self._memory.array(slot * self._nbytes, self._shape, np.float16, read_only=True)
        when_unused(values, partial(self._given_back.append, slot))
        return CachedEmbedding(Embedding(values, self._frames[key]), EmbeddingSource.MEMORY)

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Store an embedding as the most recently used, replacing that of the same key."""
        while self._given_back:
            self._table.give_back(self._given_back.popleft())
        slot, evicted = self._table.assign(key)
        for old in evicted:
            del self._frames[old]
        if slot is None:
            self._frames.pop(key, None)
        else:
            self._memory.array(slot * self._nbytes, self._shape, np.float16)[...] = embedding.values
            self._frames[key] = embedding.frame
        self._report(len(evicted))

    def _report(self, evicted: int) -> None:
        self._observer.memory(len(self._table), len(self._table) * self._nbytes, self._max_bytes, evicted)


def slot_nbytes(shape: tuple[int, int, int]) -> int:
    """Size of a slot: an embedding, rounded up to whole cache lines."""
    return -(-2 * int(np.prod(shape)) // 64) * 64
