"""The streamed call for automatic mask generation.

The stream is opened like any other call: rejections arrive before its first response, so sending the id first, the
upload and retries are those of `exchange`. Then responses are read as they arrive.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, Self, TypedDict, Unpack

import grpc
import numpy as np
import numpy.typing as npt

from samserve.client.exchange import ImageCall
from samserve.client.request import message_of
from samserve.client.response import read_rle, read_xyxy
from samserve.client.result import CocoRle
from samserve.client.rle import decode_rle
from samserve.v1 import segmentation_pb2 as pb

OnProgress = Callable[[int, int], None]
"""Called with the number of points processed, and the total number."""


class MaskGenerationParameters(TypedDict, total=False):
    """Parameters of SAM's `SamAutomaticMaskGenerator`. The server uses SAM's defaults for parameters that are
    omitted."""

    points_per_side: int
    points_per_batch: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int
    min_mask_region_area: int


@dataclass(frozen=True, eq=False)
class GeneratedMask:
    """One of the masks of everything in an image.

    Attributes:
        rle: the mask as it travels.
        iou_prediction: the model's estimate of the mask's IoU with the object meant.
        stability_score: how little the mask depends on the threshold.
        box: tight XYXY, right and bottom exclusive.
        area: pixels.
        point: (x, y) of the click that gave it.
        crop_box: XYXY of the part of the image that was searched.
    """

    rle: CocoRle = field(repr=False)
    iou_prediction: float
    stability_score: float
    box: tuple[float, float, float, float]
    area: int
    point: tuple[float, float]
    crop_box: tuple[float, float, float, float]

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask as bool `[H, W]`, decoded on first use."""
        height, width = self.rle["size"]
        return decode_rle(self.rle["counts"], (height, width))


@dataclass(slots=True)
class OpenedStream:
    """A stream whose first response has arrived; `call` returns the others. Can be iterated once."""

    first: Any
    call: Any

    def __iter__(self) -> Iterator[pb.GenerateMasksResponse]:
        return chain([self.first], self.call)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pb.GenerateMasksResponse:
        response, self.first = self.first, None
        if response is None:
            response = await self.call.read()
        if response is grpc.aio.EOF:
            raise StopAsyncIteration
        answer: pb.GenerateMasksResponse = response
        return answer


def generation_call(**parameters: Unpack[MaskGenerationParameters]) -> ImageCall[OpenedStream]:
    """A `GenerateMasks` call with these parameters.

    Raises:
        InvalidRequest: one is unknown, or of another type.
    """
    given = message_of(pb.GenerateMasksRequest, **parameters)

    def request(image: pb.Image) -> pb.GenerateMasksRequest:
        asked = pb.GenerateMasksRequest(image=image, mask_format=pb.MASK_FORMAT_COCO_RLE)
        asked.MergeFrom(given)
        return asked

    # The server may have cached the image but not its crops.
    return ImageCall("GenerateMasks", request, _as_it_is, upload=bool(parameters.get("crop_n_layers")))


def opening(method: Any) -> Callable[..., OpenedStream]:
    """Wrap the method as one with a single response, available when the stream is open."""

    def opened(request: pb.GenerateMasksRequest, **options: Any) -> OpenedStream:
        call = method(request, **options)
        return OpenedStream(next(call), call)

    return opened


def async_opening(method: Any) -> Callable[..., Awaitable[OpenedStream]]:
    """Asynchronous `opening`."""

    async def opened(request: pb.GenerateMasksRequest, **options: Any) -> OpenedStream:
        call = method(request, **options)
        first = await call.read()
        if first is grpc.aio.EOF:
            raise RuntimeError("the stream ended without an answer")
        return OpenedStream(first, call)

    return opened


def read_event(response: pb.GenerateMasksResponse, on_progress: OnProgress | None) -> GeneratedMask | None:
    """Return the mask of a response, if it has one. Progress is reported to the callback."""
    if response.HasField("progress") and on_progress is not None:
        on_progress(response.progress.points_done, response.progress.points_total)
    if not response.HasField("mask"):
        return None
    mask = response.mask.mask
    return GeneratedMask(
        rle=read_rle(mask.coco_rle),
        iou_prediction=mask.iou_prediction,
        stability_score=mask.stability_score,
        box=read_xyxy(mask.bbox),
        area=mask.area,
        point=(response.mask.point.x, response.mask.point.y),
        crop_box=read_xyxy(response.mask.crop_box),
    )


def _as_it_is(opened: OpenedStream, round_trip_seconds: float) -> OpenedStream:
    return opened
