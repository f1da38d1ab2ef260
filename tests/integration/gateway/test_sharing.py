"""Single flight: an image is encoded once for all callers and gateways."""

import asyncio
from contextlib import AsyncExitStack

import grpc

from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served, photo, refusal, serving
from tests.support.redis_server import RedisServer


def segment(served: Served, data: bytes) -> "grpc.aio.UnaryUnaryCall[pb.SegmentRequest, pb.SegmentResponse]":
    return served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=data), prompts=[PNG_CLICK]))


async def test_concurrent_requests_for_a_new_image_encode_it_once() -> None:
    async with serving() as served:
        answers = await asyncio.gather(*(segment(served, photo(1)) for _ in range(16)))
        assert [answer.cached for answer in answers].count(False) == 1
        assert served.counted("samserve_embeddings_total", source="encoded") == 1


async def test_gateways_that_share_redis_encode_an_image_once(redis_server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(serving(redis_url=redis_server.url, redis_budget_seconds=5))
            for _ in range(3)
        ]
        for seed in range(4):
            answers = await asyncio.gather(*(segment(g, photo(seed)) for g in gateways for _ in range(3)))
            assert len({answer.results[0].masks[0].coco_rle.counts for answer in answers}) == 1
        assert sum(g.counted("samserve_embeddings_total", source="encoded") for g in gateways) == 4
        later = await segment(gateways[0], photo(0))
        assert later.embedding_source == pb.EMBEDDING_SOURCE_MEMORY


async def test_another_gateway_finds_the_embedding_in_redis(redis_server: RedisServer) -> None:
    settings = {"redis_url": redis_server.url, "redis_budget_seconds": 5}
    async with serving(**settings) as first:
        known = await segment(first, photo(1))
    async with serving(**settings) as second:
        by_id = pb.SegmentRequest(image=pb.Image(image_id=known.image_id), prompts=[PNG_CLICK])
        answer = await second.stub.Segment(by_id)
        assert answer.embedding_source == pb.EMBEDDING_SOURCE_REDIS
        assert answer.results == known.results


async def test_tenants_and_secrets_part_the_cache(redis_server: RedisServer) -> None:
    settings = {"redis_url": redis_server.url, "redis_budget_seconds": 5}
    async with serving(cache_secret="ours", **settings) as ours, serving(cache_secret="theirs", **settings) as theirs:
        request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
        known = await ours.stub.Segment(request, metadata=(("samserve-tenant", "a"),))
        by_id = pb.SegmentRequest(image=pb.Image(image_id=known.image_id), prompts=[PNG_CLICK])
        assert (await ours.stub.Segment(by_id, metadata=(("samserve-tenant", "a"),))).cached
        for stub, tenant in ((ours.stub, "b"), (theirs.stub, "a")):
            refused = await refusal(stub.Segment(by_id, metadata=(("samserve-tenant", tenant),)))
            assert refused.code is grpc.StatusCode.NOT_FOUND


async def test_a_memory_tier_of_zero_bytes_stores_nothing() -> None:
    async with serving(memory_cache_bytes=0) as served:
        assert not (await segment(served, photo(1))).cached
        assert not (await segment(served, photo(1))).cached
        assert served.counted("samserve_memory_cache_entries") == 0


async def test_the_image_that_the_metadata_names_is_a_hint_to_proxies_only() -> None:
    async with serving() as served:
        request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
        known = await served.stub.Segment(request)
        for hint in (ImageId.of(photo(2)), "no id at all"):
            answer = await served.stub.Segment(request, metadata=(("samserve-image-id", hint),))
            assert (answer.image_id, answer.cached, answer.results) == (ImageId.of(photo(1)), True, known.results)
