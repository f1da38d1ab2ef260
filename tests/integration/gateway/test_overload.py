"""Cancellation, deadlines and overload: abandoned work is not done, and excess calls are refused at once."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from samserve.domain.errors import RETRY_AFTER_SECONDS
from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tests.support.gateway import PNG_CLICK, Served, photo, refusal, serving
from tests.support.model_gate import ModelGate
from tests.support.waiting import eventually, settled

SEGMENT = "/samserve.v1.SegmentationService/Segment"


def segment(
    served: Served, seed: int, timeout_seconds: float | None = None
) -> "grpc.aio.UnaryUnaryCall[pb.SegmentRequest, pb.SegmentResponse]":
    request = pb.SegmentRequest(image=pb.Image(data=photo(seed)), prompts=[PNG_CLICK])
    return served.stub.Segment(request, timeout=timeout_seconds)


def in_flight(served: Served) -> float:
    return served.counted("samserve_in_flight", limit="requests")


async def queued_behind_a_running_encode(
    served: Served, encoder_gate: ModelGate, timeout_seconds: float | None = None
) -> tuple["asyncio.Future[Any]", list[Any]]:
    """One encode that is held, and four calls whose images wait for the encoder after it."""
    encoder_gate.shut()
    running = asyncio.ensure_future(segment(served, 0))
    await encoder_gate.holds()
    calls = [segment(served, seed, timeout_seconds) for seed in range(1, 5)]
    waiting = [asyncio.ensure_future(call.code()) for call in calls]
    await eventually(lambda: served.counted("samserve_queued") == 4)
    assert not any(each.done() for each in waiting)
    return running, calls


async def assert_none_was_encoded(served: Served, encoder_gate: ModelGate, running: "asyncio.Future[Any]") -> None:
    """No call that waited is encoded once the held encode goes on."""
    await eventually(lambda: in_flight(served) == 1)
    encoder_gate.open()
    await running
    # The encoder takes images in their order, so this one comes after any that was left in the queue.
    await segment(served, 9)
    assert encoder_gate.begun == 2


async def test_requests_that_expire_in_the_queue_are_never_encoded(encoder_gate: ModelGate) -> None:
    async with serving() as served:
        running, calls = await queued_behind_a_running_encode(served, encoder_gate, timeout_seconds=3)
        assert {await call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        await assert_none_was_encoded(served, encoder_gate, running)


async def test_requests_cancelled_in_the_queue_are_never_encoded(encoder_gate: ModelGate) -> None:
    async with serving() as served:
        running, calls = await queued_behind_a_running_encode(served, encoder_gate)
        for call in calls:
            call.cancel()
        await assert_none_was_encoded(served, encoder_gate, running)


async def test_cancelled_leader_leaves_followers_unharmed(encoder_gate: ModelGate) -> None:
    async with serving() as served:
        encoder_gate.shut()
        leader = segment(served, 1)
        leading = asyncio.ensure_future(leader.code())
        await encoder_gate.holds()
        following = asyncio.ensure_future(segment(served, 1))
        await eventually(lambda: in_flight(served) == 2)
        await settled()
        leader.cancel()
        assert await leading is grpc.StatusCode.CANCELLED
        await eventually(lambda: in_flight(served) == 1)
        encoder_gate.open()
        assert (await following).results
        assert encoder_gate.begun == 1


@pytest.mark.parametrize("limit", ["max_requests", "max_encodes"])
async def test_more_than_the_limit_is_refused_with_a_time_to_retry(encoder_gate: ModelGate, limit: str) -> None:
    async with serving(**{limit: 2}) as served:
        encoder_gate.shut()
        admitted = [asyncio.ensure_future(segment(served, seed)) for seed in range(2)]
        await eventually(lambda: in_flight(served) == 2)
        await settled()
        for seed in (2, 3):
            refused = await refusal(segment(served, seed))
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.retry_after_seconds == RETRY_AFTER_SECONDS
        encoder_gate.open()
        assert all([(await call).results for call in admitted])
        assert (await segment(served, 2)).results


async def test_a_full_gateway_refuses_requests_before_parsing_them(encoder_gate: ModelGate) -> None:
    async with serving(max_requests=1) as served:
        encoder_gate.shut()
        first = asyncio.ensure_future(segment(served, 1))
        await encoder_gate.holds()
        unreadable: Any = served.channel.unary_unary(SEGMENT)
        assert (await refusal(unreadable(b"\xff"))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        encoder_gate.open()
        await first
        assert (await refusal(unreadable(b"\xff"))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_unfinished_calls_do_not_block_the_liveness_check() -> None:
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


async def test_warm_requests_are_served_while_encodes_are_refused(encoder_gate: ModelGate) -> None:
    async with serving(max_encodes=1) as served:
        await segment(served, 1)
        encoder_gate.shut()
        cold = asyncio.ensure_future(segment(served, 2))
        await encoder_gate.holds()
        assert (await refusal(segment(served, 3))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await segment(served, 1)).cached
        encoder_gate.open()
        assert not (await cold).cached


async def test_stopping_lets_calls_in_flight_end(encoder_gate: ModelGate) -> None:
    async with AsyncExitStack() as clients, asyncio.timeout(60):
        async with gateway(Settings(port=0)) as running:
            channel = await clients.enter_async_context(grpc.aio.insecure_channel(running.address))
            health: Any = HealthStub(channel)
            watch = health.Watch(HealthCheckRequest())
            assert (await watch.read()).status == HealthCheckResponse.SERVING

            async def let_it_end_once_the_gateway_stops() -> None:
                assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
                encoder_gate.open()

            encoder_gate.shut()
            request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
            call = asyncio.ensure_future(SegmentationServiceStub(channel).Segment(request))
            await encoder_gate.holds()
            stopping = asyncio.ensure_future(let_it_end_once_the_gateway_stops())
        await stopping
        assert (await call).results
