"""A call that is refused before any of its answer: what lets its caller, or a proxy, have it tried again."""

import asyncio
import logging

import grpc
import pytest

from samserve.client import AsyncClient, Unavailable
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, serving

NO_TRITON = {"backend": "triton", "triton": "127.0.0.1:1"}


async def test_a_gateway_without_models_is_asked_again_by_the_clients_retry_policy() -> None:
    async with serving(**NO_TRITON) as served, AsyncClient(served.gateway.address) as client:
        with pytest.raises(Unavailable):
            await client.segment(photo(1), [(1, 2)])
        assert served.counted("samserve_requests_total", rpc="Segment", code="UNAVAILABLE") == 4


async def test_a_refusal_brings_the_request_id_with_its_status() -> None:
    async with serving(**NO_TRITON) as served:
        request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await served.stub.Segment(request, metadata=(("x-request-id", "abc"),))
    assert not dict(raised.value.initial_metadata() or ())
    assert dict(raised.value.trailing_metadata() or ())["x-request-id"] == "abc"


async def test_calls_that_end_before_they_are_answered_are_no_faults_of_the_gateway(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as served:
        requests = [pb.SegmentRequest(image=pb.Image(data=photo(seed)), prompts=[PNG_CLICK]) for seed in range(150)]
        calls = [served.stub.Segment(request, timeout=0.001 + 0.0005 * n) for n, request in enumerate(requests)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(end, grpc.aio.AioRpcError) for end in ended)
        assert served.counted("samserve_requests_total", rpc="Segment", code="INTERNAL") == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
