"""Bytes that are no protobuf are refused like other bad input, by a status that says so and without a traceback."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from samserve.api import RPCS, SERVICE_NAME
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served, drained, photo, refusal, serving
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

GARBAGE = b"\xff\xff\xff\xffgarbage"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


def raw_call(served: Served, rpc: str) -> Any:
    """The rpc with bytes for requests."""
    method = RPCS[rpc]
    kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    return getattr(served.channel, kind)(f"/{SERVICE_NAME}/{rpc}")


@pytest.mark.parametrize("rpc", sorted(RPCS))
async def test_every_rpc_says_that_it_cannot_read_the_message(
    served: Served, rpc: str, caplog: pytest.LogCaptureFixture
) -> None:
    method = RPCS[rpc]
    with caplog.at_level(logging.INFO):
        if method.client_streaming:
            call = raw_call(served, rpc)()
            await call.write(GARBAGE)
        else:
            call = raw_call(served, rpc)(GARBAGE)
        refused = await refusal(drained(call) if method.server_streaming else call)
        # The line that every call gets once it has ended, and no traceback.
        await eventually(lambda: bool(caplog.records))
    assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, "")
    assert f"cannot parse the message as {method.input_type.full_name}" in refused.message
    assert [(record.name, record.exc_info) for record in caplog.records] == [("samserve.calls", None)]
    assert served.counted("samserve_requests_total", rpc=rpc, code="INVALID_ARGUMENT") == 1


async def test_garbage_in_an_open_stream_ends_it_and_spares_the_others(served: Served) -> None:
    start = pb.TrackObjectsRequest(
        sequence=1, frame=pb.Image(data=photo(1)), prompts=[pb.TrackedPrompt(object_id=1, prompt=PNG_CLICK)]
    )
    broken, sound = raw_call(served, "TrackObjects")(), raw_call(served, "TrackObjects")()
    for call in (broken, sound):
        await call.write(start.SerializeToString())
        assert pb.TrackObjectsResponse.FromString(await call.read()).WhichOneof("answer") == "frame"
    await broken.write(GARBAGE)
    assert (await refusal(drained(broken))).code is grpc.StatusCode.INVALID_ARGUMENT
    start.sequence = 2
    await sound.write(start.SerializeToString())
    assert pb.TrackObjectsResponse.FromString(await sound.read()).WhichOneof("answer") == "frame"
    sound.cancel()
