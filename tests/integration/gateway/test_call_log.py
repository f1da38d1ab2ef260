"""The log lines of calls."""

import base64
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from samserve.adapters.grpc import servicer
from samserve.observability.logs import add_call_ids, json_formatter
from samserve.usecases.timings import Stage
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, refusal, serving

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def logged() -> Iterator[Lines]:
    """The lines of the gateway's log so far, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter())
    handler.addFilter(add_call_ids)
    logger = logging.getLogger("samserve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)


def of_calls(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["logger"] == "samserve.calls"]


async def test_each_call_gives_one_line_with_ids_sizes_and_timings(logged: Lines) -> None:
    request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK] * 2)
    metadata = (("x-request-id", "a-1"), ("samserve-tenant", "acme"))
    async with serving() as served:
        for _ in range(2):
            answer = await served.stub.Segment(request, metadata=metadata)
    cold, warm = of_calls(logged())
    for line in (cold, warm):
        assert (line["rpc"], line["code"], line["request_id"], line["tenant"]) == ("Segment", "OK", "a-1", "acme")
        assert (line["image_id"], line["prompts"]) == (answer.image_id, 2)
        assert line["request_bytes"] == request.ByteSize()
        assert "trace_id" not in line
    assert warm["response_bytes"] == answer.ByteSize()
    assert (cold["embedding"], warm["embedding"]) == ("cold", "warm")
    stages = {f"{stage.value}_seconds" for stage in Stage if stage is not Stage.RANK}
    assert stages == {name for name in cold if name.endswith("_seconds")}
    assert sum(cold[name] for name in stages) <= cold["seconds"]
    assert "encode_seconds" not in warm


async def test_images_and_masks_are_not_logged(logged: Lines) -> None:
    data = photo(1)
    async with serving() as served:
        for mask_format in (pb.MASK_FORMAT_COCO_RLE, pb.MASK_FORMAT_PNG, pb.MASK_FORMAT_POLYGONS):
            answer = await served.stub.Segment(
                pb.SegmentRequest(image=pb.Image(data=data), prompts=[PNG_CLICK], mask_format=mask_format)
            )
        await refusal(served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=data[:300]), prompts=[PNG_CLICK])))
    text = json.dumps(logged())
    assert answer.image_id in text
    assert base64.b64encode(data[64:76]).decode() not in text
    assert "IHDR" not in text
    # The longest word is the image's id.
    assert max(len(word) for word in re.findall(r"[\w+/=:-]+", text)) == len(answer.image_id)


async def test_refusals_and_streams_are_logged_with_their_codes(logged: Lines) -> None:
    async with serving() as served:
        unknown = pb.Image(image_id="sha256:" + "0" * 64)
        await refusal(served.stub.Segment(pb.SegmentRequest(image=unknown, prompts=[PNG_CLICK])))
        stream: Any = served.stub.SegmentStream()
        await stream.write(
            pb.SegmentStreamRequest(sequence=1, start_session=pb.StartSession(image=pb.Image(data=photo(1))))
        )
        await stream.read()
        await stream.done_writing()
        assert await stream.read() == grpc.aio.EOF
    refused, streamed = of_calls(logged())
    assert (refused["code"], refused["image_id"], refused["embedding"]) == ("NOT_FOUND", unknown.image_id, "none")
    assert (streamed["rpc"], streamed["code"], streamed["embedding"]) == ("SegmentStream", "OK", "cold")


async def test_odd_ids_stay_in_their_line(logged: Lines) -> None:
    request = pb.GetServerInfoRequest()
    async with serving() as served:
        await served.stub.GetServerInfo(request, metadata=(("samserve-tenant", '"},{"level": "x" ' + "y" * 2000),))
        await served.stub.GetServerInfo(request, metadata=(("x-request-id", "z" * 200), ("samserve-tenant-bin", b"\n")))
    first, second = of_calls(logged())
    assert first["tenant"].startswith('"},{"level": "x" yy')
    assert len(first["tenant"]) == 128
    assert (first["level"], second["level"]) == ("INFO", "INFO")
    assert re.fullmatch("[0-9a-f]{32}", second["request_id"])
    assert "tenant" not in second


async def test_faults_are_logged_with_the_ids_of_their_call(logged: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a fault\nof ours")

    monkeypatch.setattr(servicer, "read_image", fail)
    async with serving() as served:
        request = pb.EmbedImageRequest(image=pb.Image(data=photo(1)))
        refused = await refusal(served.stub.EmbedImage(request, metadata=(("x-request-id", "b-2"),)))
    assert "b-2" in refused.message
    assert "fault" not in refused.message
    fault, call = (line for line in logged() if line.get("request_id") == "b-2")
    assert (fault["level"], fault["message"]) == ("ERROR", "EmbedImage failed")
    assert fault["traceback"].endswith("ZeroDivisionError: a fault\nof ours")
    assert (call["rpc"], call["code"]) == ("EmbedImage", "INTERNAL")
