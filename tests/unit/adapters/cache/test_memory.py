"""The memory tier against a model of an LRU bounded in bytes, and the two tiers as one."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samserve.adapters.cache.memory import MemoryEmbeddingCache
from samserve.adapters.cache.tiered import TieredEmbeddingCache
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.ports import EmbeddingSource

MAX_BYTES = 20


@dataclass
class MemoryObserver:
    """Records what the memory tier reports."""

    reports: list[tuple[int, int, int]] = field(default_factory=list)

    def redis_call(self, operation: str, outcome: str) -> None:
        raise AssertionError("the memory tier does not use Redis")

    def rejected(self, reason: str) -> None:
        raise AssertionError("the memory tier stores no packed values")

    def breaker(self, is_open: bool) -> None:
        raise AssertionError("the memory tier has no breaker")

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        self.reports.append((entries, nbytes, evicted))


def embedding_of(content: int, count: int) -> Embedding:
    values = np.full((1, 1, count), content, np.float16)
    return Embedding(values, ImageFrame(Size(3, 5), 8))


keys = st.sampled_from([EmbeddingKey(letter) for letter in "abcdef"])
# 2 to 24 bytes in a cache of 20: some evict others, some never fit.
puts = st.tuples(st.just("put"), keys, st.integers(1, 12))
gets = st.tuples(st.just("get"), keys, st.just(0))


@given(st.lists(st.one_of(puts, gets), max_size=60))
def test_the_cache_behaves_like_a_simple_lru_model(operations: list[tuple[str, EmbeddingKey, int]]) -> None:
    async def scenario() -> None:
        observer = MemoryObserver()
        cache = MemoryEmbeddingCache(MAX_BYTES, observer)
        # Least recently used first.
        model: list[tuple[EmbeddingKey, Embedding]] = []
        for step, (operation, key, count) in enumerate(operations):
            known = next((embedding for name, embedding in model if name == key), None)
            model = [entry for entry in model if entry[0] != key]
            if operation == "put":
                before = len(model)
                embedding = embedding_of(step, count)
                await cache.put(key, embedding)
                if embedding.nbytes <= MAX_BYTES:
                    while sum(kept.nbytes for _, kept in model) + embedding.nbytes > MAX_BYTES:
                        del model[0]
                evicted = before - len(model)
                if embedding.nbytes <= MAX_BYTES:
                    model.append((key, embedding))
                nbytes = sum(kept.nbytes for _, kept in model)
                assert nbytes <= MAX_BYTES
                assert observer.reports[-1] == (len(model), nbytes, evicted)
            else:
                hit = await cache.get(key)
                if known is None:
                    assert hit is None
                    continue
                assert hit is not None
                assert hit.source is EmbeddingSource.MEMORY
                assert hit.embedding.frame == known.frame
                np.testing.assert_array_equal(hit.embedding.values, known.values)
                model.append((key, known))

    asyncio.run(scenario())


async def test_holds_exactly_the_bound_and_no_more() -> None:
    observer = MemoryObserver()
    cache = MemoryEmbeddingCache(MAX_BYTES, observer)
    for name in "ab":
        await cache.put(EmbeddingKey(name), embedding_of(1, 5))
    assert observer.reports[-1] == (2, MAX_BYTES, 0)
    await cache.put(EmbeddingKey("c"), embedding_of(1, 1))
    assert observer.reports[-1] == (2, 12, 1)
    assert await cache.get(EmbeddingKey("a")) is None


async def test_a_replacement_that_does_not_fit_removes_the_old_entry() -> None:
    cache = MemoryEmbeddingCache(MAX_BYTES, MemoryObserver())
    await cache.put(EmbeddingKey("a"), embedding_of(1, 1))
    await cache.put(EmbeddingKey("a"), embedding_of(2, 11))
    assert await cache.get(EmbeddingKey("a")) is None


async def test_stored_embeddings_are_read_only() -> None:
    cache = MemoryEmbeddingCache(MAX_BYTES, MemoryObserver())
    given_in = embedding_of(1, 4)
    await cache.put(EmbeddingKey("a"), given_in)
    given_in.values[:] = 9
    hit = await cache.get(EmbeddingKey("a"))
    assert hit is not None
    np.testing.assert_array_equal(hit.embedding.values, 1)
    with pytest.raises(ValueError, match="read-only"):
        hit.embedding.values[0, 0, 0] = 9
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        hit.embedding.values.flags.writeable = True


async def test_tiers_find_promote_and_store() -> None:
    key = EmbeddingKey("a")
    near, far = (MemoryEmbeddingCache(MAX_BYTES, MemoryObserver()) for _ in range(2))
    tiers = TieredEmbeddingCache(near, far)
    assert await tiers.get(key) is None

    await tiers.put(key, embedding_of(1, 2))
    assert await near.get(key) is not None
    assert await far.get(key) is not None

    await far.put(key, embedding_of(2, 2))
    hit = await tiers.get(key)
    assert hit is not None
    assert hit.embedding.values[0, 0, 0] == 1

    emptied = MemoryEmbeddingCache(MAX_BYTES, MemoryObserver())
    hit = await TieredEmbeddingCache(emptied, far).get(key)
    assert hit is not None
    assert hit.embedding.values[0, 0, 0] == 2
    assert await emptied.get(key) is not None
