"""The embedder on an encoder that counts and waits, and a cache that is a dict."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from samserve.domain.errors import CapacityExceeded, EmbeddingNotFound, InvalidImage, InvalidPrompt, ModelUnavailable
from samserve.domain.geometry import CropBox, Size
from samserve.domain.identity import EmbeddingKey, ImageId
from samserve.usecases.embedder import ImageInput
from samserve.usecases.ports import EmbeddingSource
from samserve.usecases.timings import Stage
from tests.support.embedder_bench import DOG, SIZE, Bench
from tests.support.fake_models import DictCache
from tests.support.waiting import eventually, settled

ANY = "the key of any image"


class SharedLease:
    """What Redis does between gateways, in one process.

    Attributes:
        refused: how often it was asked for while another held it.
    """

    def __init__(self) -> None:
        self.holders: set[str] = set()
        self.refused = 0

    @asynccontextmanager
    async def try_acquire(self, key: EmbeddingKey) -> AsyncIterator[bool]:
        granted = not self.holders & {key, ANY}
        self.holders.add(key)
        self.refused += not granted
        try:
            yield granted
        finally:
            if granted:
                self.holders.discard(key)

    @asynccontextmanager
    async def held_elsewhere(self) -> AsyncIterator[None]:
        """Another gateway holds the lease of every key."""
        self.holders.add(ANY)
        yield
        self.holders.clear()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_second_request_skips_the_encoder(bench: Bench) -> None:
    bench.encoder.let.set()
    first = await bench.embedder.embed(DOG, "")
    second = await bench.embedder.embed(DOG, "")
    by_id = await bench.embedder.embed(ImageInput(image_id=ImageId.of(b"dog")), "")
    assert (first.source, second.source, by_id.source) == (
        EmbeddingSource.ENCODED,
        EmbeddingSource.MEMORY,
        EmbeddingSource.MEMORY,
    )
    assert bench.encoder.encoded == bench.decoder.decoded == 1


async def test_tenants_do_not_see_each_others_images(bench: Bench) -> None:
    bench.encoder.let.set()
    await bench.embedder.embed(DOG, "a")
    with pytest.raises(EmbeddingNotFound):
        await bench.embedder.embed(ImageInput(image_id=ImageId.of(b"dog")), "b")


async def test_concurrent_requests_for_a_new_image_encode_it_once(bench: Bench) -> None:
    callers = [asyncio.create_task(bench.embedder.embed(DOG, "")) for _ in range(20)]
    await bench.encoder.begun.wait()
    callers.append(asyncio.create_task(bench.embedder.embed(ImageInput(image_id=ImageId.of(b"dog")), "")))
    await settled()
    bench.encoder.let.set()
    leader, *followers = await asyncio.gather(*callers)
    assert bench.encoder.encoded == 1
    assert leader.source is EmbeddingSource.ENCODED
    assert {follower.source for follower in followers} == {EmbeddingSource.COALESCED}
    assert set(leader.timings.seconds) == {Stage.CACHE, Stage.IMAGE_DECODE, Stage.ENCODE}
    # The wait for the leader is all that an encode costs a follower.
    assert all(set(follower.timings.seconds) == {Stage.CACHE, Stage.QUEUE} for follower in followers)


async def test_cancelled_leader_leaves_followers_unharmed(bench: Bench) -> None:
    leader = asyncio.create_task(bench.embedder.embed(DOG, ""))
    await bench.encoder.begun.wait()
    follower = asyncio.create_task(bench.embedder.embed(DOG, ""))
    await settled()
    leader.cancel()
    await settled()
    bench.encoder.let.set()
    assert (await follower).source is EmbeddingSource.COALESCED
    assert bench.encoder.encoded == 1


async def test_cancelled_while_waiting_never_starts_an_encode() -> None:
    lease = SharedLease()
    bench = Bench(lease=lease)
    async with lease.held_elsewhere():
        caller = asyncio.create_task(bench.embedder.embed(DOG, ""))
        await eventually(lambda: lease.refused >= 2)
        assert bench.admission.in_flight == 1
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await eventually(lambda: bench.admission.in_flight == 0)
    # Free again, and nobody is left to take it.
    await settled()
    assert bench.encoder.encoded == bench.decoder.decoded == bench.admission.in_flight == 0


async def test_a_failed_encode_is_raised_and_not_cached(bench: Bench) -> None:
    bench.encoder.failing = True
    bench.encoder.let.set()
    with pytest.raises(ModelUnavailable):
        await bench.embedder.embed(DOG, "")
    bench.encoder.failing = False
    assert (await bench.embedder.embed(DOG, "")).source is EmbeddingSource.ENCODED
    assert bench.admission.in_flight == 0


async def test_refused_prompts_run_no_model(bench: Bench) -> None:
    def refuse(original_size: Size) -> None:
        assert original_size == SIZE
        raise InvalidPrompt("prompts[0]", "outside")

    with pytest.raises(InvalidPrompt):
        await bench.embedder.embed(DOG, "", refuse)
    with pytest.raises(InvalidImage):
        await bench.embedder.embed(ImageInput(data=b"not an image"), "")
    assert bench.encoder.encoded == bench.decoder.decoded == 0


async def test_cached_images_are_checked_too(bench: Bench) -> None:
    bench.encoder.let.set()
    await bench.embedder.embed(DOG, "")

    def refuse(original_size: Size) -> None:
        raise InvalidPrompt("prompts[0]", "outside")

    with pytest.raises(InvalidPrompt):
        await bench.embedder.embed(DOG, "", refuse)


async def test_encodes_over_the_limit_are_refused_and_cached_images_are_not() -> None:
    bench = Bench(max_encodes=1)
    bench.encoder.let.set()
    await bench.embedder.embed(DOG, "")
    bench.encoder.let.clear()
    running = asyncio.create_task(bench.embedder.embed(ImageInput(data=b"cat"), ""))
    await eventually(lambda: bench.encoder.encoded == 2)
    with pytest.raises(CapacityExceeded) as refusal:
        await bench.embedder.embed(ImageInput(data=b"cow"), "")
    assert refusal.value.retry_after_seconds == 2.0
    assert (await bench.embedder.embed(DOG, "")).source is EmbeddingSource.MEMORY
    bench.encoder.let.set()
    await running


async def test_gateways_that_share_lease_and_cache_encode_once() -> None:
    lease, cache = SharedLease(), DictCache()
    first, second = Bench(lease, cache), Bench(lease, cache)
    leader = asyncio.create_task(first.embedder.embed(DOG, ""))
    await first.encoder.begun.wait()
    waiting = asyncio.create_task(second.embedder.embed(DOG, ""))
    await eventually(lambda: lease.refused >= 2)
    assert second.encoder.encoded == 0
    first.encoder.let.set()
    assert (await leader).source is EmbeddingSource.ENCODED
    assert (await waiting).source is EmbeddingSource.MEMORY
    assert first.encoder.encoded + second.encoder.encoded == 1


async def test_failing_holder_hands_the_encode_over_to_the_next_gateway() -> None:
    lease, cache = SharedLease(), DictCache()
    first, second = Bench(lease, cache), Bench(lease, cache)
    first.encoder.failing = True
    second.encoder.let.set()
    leader = asyncio.create_task(first.embedder.embed(DOG, ""))
    await first.encoder.begun.wait()
    waiting = asyncio.create_task(second.embedder.embed(DOG, ""))
    await eventually(lambda: lease.refused >= 1)
    first.encoder.let.set()
    with pytest.raises(ModelUnavailable):
        await leader
    assert (await waiting).source is EmbeddingSource.ENCODED


async def test_crops_are_images_of_their_own_in_the_cache(bench: Bench) -> None:
    bench.encoder.let.set()
    left, right = CropBox(0, 0, 20, 30), CropBox(20, 0, 40, 30)
    whole = await bench.embedder.embed(DOG, "")
    sources = [(await bench.embedder.embed(DOG, "", crop_box=box)).source for box in (left, right, left)]
    assert sources == [EmbeddingSource.ENCODED, EmbeddingSource.ENCODED, EmbeddingSource.MEMORY]
    assert bench.decoder.crops == [None, left, right]
    assert len(bench.cache.stored) == 3
    known = ImageInput(image_id=whole.image_id)
    assert (await bench.embedder.embed(known, "", crop_box=left)).source is EmbeddingSource.MEMORY
    with pytest.raises(EmbeddingNotFound):
        await bench.embedder.embed(known, "", crop_box=CropBox(0, 0, 20, 29))
