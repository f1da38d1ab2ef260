"""Shared memory and what lies in it: the slab of embeddings and the scratch of requests."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from samserve.adapters.triton.scratch import Scratch
from samserve.adapters.triton.shared_memory import FOLDER, SharedMemory, SharedMemoryUnavailable, is_gone
from samserve.adapters.triton.slab import SlabEmbeddingCache, slot_nbytes
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey

SHAPE = (4, 8, 8)
SLOT = slot_nbytes(SHAPE)
FRAME = ImageFrame(Size(30, 40), 64)


class Observer:
    """Remembers what the memory tier last reported."""

    state = (0, 0, 0)

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        self.state = (entries, nbytes, evicted)

    def redis_call(self, operation: str, outcome: str) -> None: ...

    def rejected(self, reason: str) -> None: ...

    def breaker(self, is_open: bool) -> None: ...


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(64 * SLOT)
    yield memory
    memory.close()


def embedding(content: float) -> Embedding:
    return Embedding(np.full(SHAPE, content, np.float16), FRAME)


def key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"model:{number}")


def cache_of(memory: SharedMemory, slots: int) -> tuple[SlabEmbeddingCache, Observer]:
    observer = Observer()
    return SlabEmbeddingCache(memory, slots, SHAPE, observer), observer


async def contents(cache: SlabEmbeddingCache, count: int) -> dict[int, float]:
    hits = {number: await cache.get(key(number)) for number in range(count)}
    return {number: float(hit.embedding.values[0, 0, 0]) for number, hit in hits.items() if hit}


async def test_the_slab_forgets_the_least_recently_used(memory: SharedMemory) -> None:
    cache, observer = cache_of(memory, 3)
    for number in range(3):
        await cache.put(key(number), embedding(number))
    assert await cache.get(key(0)) is not None
    await cache.put(key(3), embedding(3))
    assert await contents(cache, 4) == {0: 0.0, 2: 2.0, 3: 3.0}
    assert observer.state == (3, 3 * SLOT, 1)


async def test_an_embedding_in_use_is_not_written_over(memory: SharedMemory) -> None:
    cache, _ = cache_of(memory, 2)
    for number in range(2):
        await cache.put(key(number), embedding(number))
    hit = await cache.get(key(0))
    assert hit is not None
    view = hit.embedding.values[None][0, 1:]
    del hit
    for number in range(2, 6):
        await cache.put(key(number), embedding(number))
        assert (view == 0.0).all()
    assert await contents(cache, 6) == {0: 0.0, 5: 5.0}
    del view
    gc.collect()
    await cache.put(key(6), embedding(6))
    await cache.put(key(7), embedding(7))
    assert await contents(cache, 8) == {6: 6.0, 7: 7.0}


async def test_an_embedding_is_not_stored_while_all_slots_are_in_use(memory: SharedMemory) -> None:
    cache, observer = cache_of(memory, 1)
    await cache.put(key(0), embedding(0))
    hit = await cache.get(key(0))
    assert hit is not None
    await cache.put(key(1), embedding(1))
    assert await cache.get(key(1)) is None
    assert observer.state == (1, SLOT, 0)
    await cache.put(key(0), embedding(9))
    assert (hit.embedding.values == 0.0).all()
    assert await cache.get(key(0)) is None


async def test_embeddings_of_the_slab_are_read_only_views_of_the_memory(memory: SharedMemory) -> None:
    cache, _ = cache_of(memory, 3)
    for number in range(3):
        await cache.put(key(number), embedding(number))
    hit = await cache.get(key(1))
    assert hit is not None
    assert memory.offset_of(hit.embedding.values) == SLOT
    with pytest.raises(ValueError, match="read-only"):
        hit.embedding.values[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        hit.embedding.values.flags.writeable = True


def test_offsets_are_those_of_contiguous_arrays_inside_the_memory(memory: SharedMemory) -> None:
    array = memory.array(128, (8, 16), np.float32)
    assert memory.offset_of(array) == 128
    assert memory.offset_of(array[2:]) == 128 + 2 * 64
    assert memory.offset_of(array[:, 1:]) is None
    assert memory.offset_of(np.zeros(4)) is None


def test_scratch_is_there_again_once_arrays_and_views_are_gone(memory: SharedMemory) -> None:
    scratch = Scratch(memory, 0)
    first = scratch.take((memory.nbytes,), np.uint8)
    assert first is not None
    view = first[5:]
    del first
    assert scratch.take((1,), np.uint8) is None
    del view
    assert scratch.take((1,), np.uint8) is not None


def test_abandoned_arrays_wait_for_the_answer_to_a_later_request(
    memory: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    scratch = Scratch(memory, 0)
    array = scratch.take((memory.nbytes,), np.uint8)
    assert array is not None
    scratch.abandon("decoder", [array])
    del array
    scratch.answered("decoder", sent=99.0)
    scratch.answered("encoder", sent=200.0)
    assert scratch.has_abandoned
    assert scratch.take((1,), np.uint8) is None
    scratch.answered("decoder", sent=102.0)
    assert not scratch.has_abandoned
    assert scratch.take((1,), np.uint8) is not None


def test_arrays_outlive_the_name(memory: SharedMemory) -> None:
    array = memory.array(0, (4,), np.uint8)
    array[:] = 7
    assert not is_gone(memory.name)
    memory.close()
    assert is_gone(memory.name)
    assert (array == 7).all()


def test_an_allocation_beyond_the_memory_is_refused_and_leaves_no_segment() -> None:
    before = set(FOLDER.iterdir())
    with pytest.raises(SharedMemoryUnavailable, match="SAMSERVE_MEMORY_CACHE_BYTES"):
        SharedMemory(1 << 50)
    assert not [path for path in set(FOLDER.iterdir()) - before if path.name.startswith("samserve-")]


def test_memory_of_a_gateway_that_was_killed_is_removed_and_that_of_a_living_one_is_not(memory: SharedMemory) -> None:
    script = (
        "import time; from samserve.adapters.triton.shared_memory import SharedMemory; "
        "print(SharedMemory(1 << 20).name, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    left = Path(FOLDER, process.stdout.readline().strip())
    SharedMemory(1 << 20).close()
    assert left.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    SharedMemory(1 << 20).close()
    assert not left.exists()
    assert not is_gone(memory.name)
