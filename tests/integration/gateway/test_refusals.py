"""Calls that fail before any of their response: retries, the request id, and calls that end early."""

import asyncio
import logging
from typing import Any

import grpc
import pytest

from samserve.client import AsyncClient, Unavailable
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served, photo, serving
from tests.support.model_gate import ModelGate
from tests.support.waiting import eventually

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


def segment(served: Served, timeout_seconds: float | None = None) -> Any:
    request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
    return served.stub.Segment(request, timeout=timeout_seconds)


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged at ERROR, which in this project means that someone has to look."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("held", ["encoder_gate", "decoder_gate"])
@pytest.mark.parametrize("end", ["CANCELLED", "DEADLINE_EXCEEDED"])
async def test_a_call_that_ends_while_a_model_runs_is_no_fault_of_the_gateway(
    held: str, end: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    gate: ModelGate = request.getfixturevalue(held)
    async with serving() as served:
        gate.shut()
        call = segment(served, timeout_seconds=2 if end == "DEADLINE_EXCEEDED" else None)
        waiting = asyncio.ensure_future(call.code())
        await gate.holds()
        if end == "CANCELLED":
            call.cancel()
        assert (await waiting).name == end
        # Which of the two clocks is ahead decides between them.
        await eventually(lambda: sum(ended(served, code) for code in ("CANCELLED", "DEADLINE_EXCEEDED")) == 1)
        gate.open()
        assert (await segment(served)).results
        assert ended(served, "INTERNAL") == 0
    assert faults(caplog) == []


def ended(served: Served, code: str, rpc: str = "Segment") -> float:
    return served.counted("samserve_requests_total", rpc=rpc, code=code)
