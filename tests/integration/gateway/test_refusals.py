"""A call that is refused before any of its answer: what lets its caller, or a proxy, have it tried again."""

import grpc
import pytest

from samserve.client import AsyncClient, Unavailable
from samserve.v1 import segmentation_pb2 as pb
from tests.integration.gateway.conftest import PNG_CLICK, photo, serving

NO_TRITON = {"engine": "triton", "triton": "127.0.0.1:1"}


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
