"""Large fields of requests are read once: protobuf copies a bytes field at each access, on the event loop."""

from collections import Counter
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from samserve.adapters.grpc.wire import Wire
from samserve.api import RPCS
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, rest, serving

SIDE = 64
"""Of the bundled model's logits."""

PHOTO, NO_PHOTO = pb.Image(data=photo(1)), pb.Image(data=b"not an image")
REFINED = pb.Prompt(
    points=PNG_CLICK.points, mask_input=pb.LowResMask(size=SIDE, data=np.zeros((SIDE, SIDE), "<f2").tobytes())
)
TEXT = pb.Prompt(text="a disc")

REQUESTS: list[tuple[str, list[Message], set[str]]] = [
    ("EmbedImage", [pb.EmbedImageRequest(image=PHOTO)], {"image.data"}),
    ("GetEmbedding", [pb.GetEmbeddingRequest(image=PHOTO)], {"image.data"}),
    (
        "Segment",
        [pb.SegmentRequest(image=PHOTO, prompts=[REFINED] * 2)],
        {"image.data", "prompts[0].mask_input.data", "prompts[1].mask_input.data"},
    ),
    ("Segment", [pb.SegmentRequest(image=PHOTO, prompts=[TEXT])], {"image.data"}),
    ("DetectEdges", [pb.DetectEdgesRequest(image=NO_PHOTO)], {"image.data"}),
    ("GenerateMasks", [pb.GenerateMasksRequest(image=PHOTO, points_per_side=1)], {"image.data"}),
    (
        "SegmentStream",
        [pb.SegmentStreamRequest(sequence=1, start_session=pb.StartSession(image=NO_PHOTO))],
        {"start_session.image.data"},
    ),
    (
        "SegmentGaze",
        [
            pb.SegmentGazeRequest(config=pb.GazeConfig()),
            pb.SegmentGazeRequest(frame=pb.GazeFrame(sequence=1, image=NO_PHOTO)),
        ],
        {"frame.image.data"},
    ),
    (
        "TrackObjects",
        [pb.TrackObjectsRequest(frame=PHOTO, prompts=[pb.TrackedPrompt(object_id=1, prompt=REFINED)])],
        {"frame.data", "prompts[0].prompt.mask_input.data"},
    ),
]


def has_bytes(kind: Descriptor) -> bool:
    """Whether a message holds bytes anywhere."""
    return any(
        field.type == FieldDescriptor.TYPE_BYTES or (field.message_type is not None and has_bytes(field.message_type))
        for field in kind.fields
    )


class Counted:
    """Stands for a message, and counts by path how often each of its bytes fields is read."""

    def __init__(self, message: Any, reads: Counter[str], path: str = "") -> None:
        self._message, self._reads, self._path = message, reads, path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._message, name)
        field = self._message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            return value
        path = self._path + name
        if field.type == FieldDescriptor.TYPE_BYTES:
            self._reads[path] += 1
        if field.message_type is None or not has_bytes(field.message_type):
            return value
        if isinstance(value, Message):
            return Counted(value, self._reads, f"{path}.")
        return [Counted(part, self._reads, f"{path}[{index}].") for index, part in enumerate(value)]


@pytest.mark.parametrize(("rpc", "requests", "fields"), REQUESTS, ids=[rpc for rpc, _, _ in REQUESTS])
async def test_each_bytes_field_of_a_request_is_read_once(
    rpc: str, requests: list[Message], fields: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    parse = Wire.parse
    monkeypatch.setattr(Wire, "parse", lambda wire, data: Counted(parse(wire, data), reads))
    async with serving() as served:
        method: Any = getattr(served.stub, rpc)
        if RPCS[rpc].client_streaming:
            call = method()
            for request in requests:
                await call.write(request)
            assert await call.read() != grpc.aio.EOF
            await call.done_writing()
        else:
            call = method(*requests)
        if RPCS[rpc].server_streaming:
            async for _ in rest(call):
                pass
        assert await call.code() is not grpc.StatusCode.INTERNAL
    assert reads == dict.fromkeys(fields, 1)


def test_every_rpc_that_takes_bytes_is_among_them() -> None:
    assert {rpc for rpc, _, _ in REQUESTS} == {name for name, rpc in RPCS.items() if has_bytes(rpc.input_type)}
