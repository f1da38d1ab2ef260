"""Real gateways on the bundled model in the process of the tests, asked through real gRPC."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from PIL import Image
from pycocotools import mask as coco

from samserve.gateway.process import Gateway, gateway
from samserve.gateway.settings import Settings
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub

if TYPE_CHECKING:
    from samserve.v1.segmentation_pb2_grpc import SegmentationServiceAsyncStub


LARGE = (700, 700)
"""Size of a photo whose embedding takes a while."""

PNG_CLICK = pb.Prompt(points=[pb.Point(x=20, y=15, label=pb.POINT_LABEL_FOREGROUND)])
CENTRE_CLICK = pb.Prompt(points=[pb.Point(x=32, y=24, label=pb.POINT_LABEL_FOREGROUND)])
FOUND_IOU = 0.9
"""IoU with the disc that any model worth its weights reaches from a click on its middle or a box around it."""


def disc(size: tuple[int, int] = (48, 64)) -> npt.NDArray[np.bool_]:
    """Where the disc of a photo is."""
    height, width = size
    ys, xs = np.mgrid[:height, :width]
    inside: npt.NDArray[np.bool_] = np.hypot(ys - height / 2, xs - width / 2) < min(size) / 3
    return inside


def pixels_of(mask: pb.Mask) -> npt.NDArray[np.bool_]:
    """A mask in COCO's form as it lies on its image."""
    size = [mask.coco_rle.size.height, mask.coco_rle.size.width]
    return np.asarray(coco.decode({"size": size, "counts": mask.coco_rle.counts})) > 0


def iou(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((mask & other).sum() / (mask | other).sum())


def photo(seed: int, size: tuple[int, int] = (48, 64)) -> bytes:
    """A PNG that no other seed gives: a bright disc on noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
    pixels[disc(size)] += np.uint8(120)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Served:
    """A gateway and a stub for it."""

    gateway: Gateway
    channel: grpc.aio.Channel
    stub: "SegmentationServiceAsyncStub"

    def counted(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Served]:
    """A gateway with these settings."""
    async with (
        gateway(Settings(port=0, stop_grace_seconds=1, **settings)) as running,
        grpc.aio.insecure_channel(
            running.address,
            options=[("grpc.max_send_message_length", 1 << 30), ("grpc.max_receive_message_length", 1 << 30)],
        ) as channel,
    ):
        yield Served(running, channel, SegmentationServiceStub(channel))


@dataclass(frozen=True)
class Refusal:
    """How a call failed: its status, the field that BadRequest names, and the delay that RetryInfo asks for."""

    code: grpc.StatusCode
    message: str
    field: str | None
    retry_after_seconds: float | None


async def refusal(call: Any) -> Refusal:
    """Await a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = raised.value
    status, bad_request, retry = Status(), BadRequest(), RetryInfo()
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    status.ParseFromString(details if isinstance(details, bytes) else b"")
    field = retry_after_seconds = None
    for detail in status.details:
        if detail.Unpack(bad_request):
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(error.code(), error.details() or "", field, retry_after_seconds)


async def drained(call: Any) -> None:
    """Read until the end; raises how it ended."""
    async for _ in rest(call):
        pass
    if await call.code() != grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )


async def rest(call: Any) -> AsyncIterator[Any]:
    """What is still to come."""
    while (message := await call.read()) != grpc.aio.EOF:
        yield message
