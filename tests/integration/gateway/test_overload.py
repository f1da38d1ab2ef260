"""Cancellation, deadlines and overload: what nobody waits for is not done, what is too much is refused at once."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tests.support.gateway import LARGE, PNG_CLICK, Served, photo, refusal, serving

SEGMENT = "/samserve.v1.SegmentationService/Segment"


def segment(
    served: Served, seed: int, timeout_seconds: float | None = None
) -> "grpc.aio.UnaryUnaryCall[pb.SegmentRequest, pb.SegmentResponse]":
    request = pb.SegmentRequest(image=pb.Image(data=photo(seed, LARGE)), prompts=[PNG_CLICK])
    return served.stub.Segment(request, timeout=timeout_seconds)


async def test_expired_requests_never_start_an_encode() -> None:
    async with serving(image_decode_workers=1) as served:
        busy = [asyncio.ensure_future(segment(served, seed)) for seed in range(2)]
        await asyncio.sleep(0.05)
        expired = [await refusal(segment(served, seed, timeout_seconds=0.001)) for seed in range(10, 14)]
        assert {refused.code for refused in expired} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        await asyncio.gather(*busy)
        await asyncio.sleep(0.2)
        assert served.counted("samserve_memory_cache_entries") == 2


async def test_cancelled_requests_in_the_queue_never_start_an_encode() -> None:
    async with serving(image_decode_workers=1) as served:
        calls = [segment(served, seed) for seed in range(8)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0.5)
        # The first, and at most the few whose encode had begun when the others were cancelled.
        assert served.counted("samserve_memory_cache_entries") <= 3


async def test_cancelled_leader_leaves_followers_unharmed() -> None:
    async with serving() as served:
        leader, follower = segment(served, 1), segment(served, 1)
        waiting = [asyncio.ensure_future(leader), asyncio.ensure_future(follower)]
        await asyncio.sleep(0.05)
        leader.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert isinstance(outcomes[1], pb.SegmentResponse)


@pytest.mark.parametrize("limit", [{"max_requests": 2}, {"max_encodes": 2}])
async def test_more_than_the_limit_is_refused_with_a_time_to_retry(limit: dict[str, int]) -> None:
    async with serving(**limit) as served:
        calls = [asyncio.ensure_future(segment(served, seed)) for seed in range(4)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert len(refused) == 2
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("grpc-status-details-bin" in dict(error.trailing_metadata() or ()) for error in refused)
        assert isinstance(await segment(served, 0), pb.SegmentResponse)


async def test_a_full_gateway_refuses_what_it_has_not_read() -> None:
    async with serving(max_requests=1) as served:
        first = asyncio.ensure_future(segment(served, 1))
        await asyncio.sleep(0.02)
        unreadable: Any = served.channel.unary_unary(SEGMENT)
        assert (await refusal(unreadable(b"\xff"))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first
        assert (await refusal(unreadable(b"\xff"))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_calls_that_never_end_do_not_keep_liveness_from_being_heard() -> None:
    async with serving(max_requests=1, max_streams=1, health_port=0) as served:
        # More than gRPC lets in: that one is refused says that all places are taken.
        unfinished: list[Any] = [served.channel.stream_stream(SEGMENT)() for _ in range(5)]
        await asyncio.wait([asyncio.ensure_future(call.code()) for call in unfinished], return_when="FIRST_COMPLETED")
        liveness = HealthCheckRequest(service="liveness")
        beside: Any = HealthStub(served.channel)
        assert (await refusal(beside.Check(liveness))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.gateway.health_port}") as channel:
            apart: Any = HealthStub(channel)
            assert (await apart.Check(liveness)).status == HealthCheckResponse.SERVING
        for call in unfinished:
            call.cancel()


async def test_an_answer_too_large_for_a_message_is_refused_by_name() -> None:
    image = photo(1)
    async with serving(max_image_bytes=len(image)) as served:
        refused = await refusal(served.stub.GetEmbedding(pb.GetEmbeddingRequest(image=pb.Image(data=image))))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"the limit of a message is {2 * len(image)}" in refused.message
        assert served.counted("samserve_requests_total", rpc="GetEmbedding", code="INVALID_ARGUMENT") == 1


async def test_warm_requests_are_served_while_encodes_are_refused() -> None:
    async with serving(max_encodes=1) as served:
        await segment(served, 1)
        cold = asyncio.ensure_future(segment(served, 2))
        await asyncio.sleep(0.02)
        assert (await segment(served, 1)).cached
        await cold


async def test_stopping_lets_calls_in_flight_end() -> None:
    async with gateway(Settings(port=0)) as running:
        channel = grpc.aio.insecure_channel(running.address)
        request = pb.SegmentRequest(image=pb.Image(data=photo(1, LARGE)), prompts=[PNG_CLICK])
        call = asyncio.ensure_future(SegmentationServiceStub(channel).Segment(request))
        await asyncio.sleep(0.05)
    assert isinstance(await call, pb.SegmentResponse)
    await channel.close()
