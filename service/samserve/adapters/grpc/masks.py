"""Masks in the forms of the API."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from samserve.domain.errors import InvalidPrompt
from samserve.domain.masks import Mask, run_lengths
from samserve.v1 import segmentation_pb2 as pb


def mask_renderer(mask_format: pb.MaskFormat.ValueType, include_low_res_masks: bool) -> Callable[[Mask], pb.Mask]:
    """What turns a mask into the message that a request asked for.

    Raises:
        InvalidPrompt: the format is unknown.
    """
    try:
        fill = _FORMS[mask_format]
    except KeyError:
        raise InvalidPrompt(
            "mask_format", f"unknown mask_format {mask_format}; expected COCO_RLE, PNG, POLYGONS or LOW_RES_LOGITS"
        ) from None

    def render(mask: Mask) -> pb.Mask:
        x0, y0, x1, y1 = mask.bbox
        message = pb.Mask(
            iou_prediction=mask.iou_prediction,
            stability_score=mask.stability_score,
            bbox=pb.Box(x0=x0, y0=y0, x1=x1, y1=y1),
            area=mask.area,
        )
        fill(mask, message)
        if include_low_res_masks:
            message.low_res_mask.CopyFrom(low_res_message(mask.low_res_mask))
        return message

    return render


class MaskForm:
    """Renders the masks of a stream, in a form that may be chosen anew."""

    def __init__(self) -> None:
        self.choose(pb.MASK_FORMAT_UNSPECIFIED)

    def choose(self, mask_format: pb.MaskFormat.ValueType) -> None:
        """Take this form from now on.

        Raises:
            InvalidPrompt: the format is unknown; the last one stays.
        """
        self._render = mask_renderer(mask_format, include_low_res_masks=False)

    def __call__(self, mask: Mask) -> pb.Mask:
        """The mask as a message."""
        return self._render(mask)


def low_res_message(low_res_mask: npt.NDArray[np.float32]) -> pb.LowResMask:
    """Logits as float16, limited to its range."""
    limit = np.finfo(np.float16).max
    values = np.clip(low_res_mask, -limit, limit).astype("<f2")
    return pb.LowResMask(data=values.tobytes(), size=len(values))


def _fill_coco_rle(mask: Mask, message: pb.Mask) -> None:
    height, width = mask.original_size
    runs = {"size": [height, width], "counts": run_lengths(mask)}
    encoded = coco.frPyObjects(runs, height, width)  # type: ignore[call-overload]
    message.coco_rle.counts = encoded["counts"]
    message.coco_rle.size.height, message.coco_rle.size.width = height, width


def _fill_png(mask: Mask, message: pb.Mask) -> None:
    file = BytesIO()
    Image.fromarray(mask.full()).save(file, "PNG")
    message.png = file.getvalue()


def _fill_polygons(mask: Mask, message: pb.Mask) -> None:
    message.polygons.SetInParent()
    if not mask.window.size:
        return
    contours, hierarchy = cv2.findContours(
        mask.window.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(mask.left, mask.top)
    )
    exteriors: dict[int, pb.Polygon] = {}
    # OpenCV lists a hole's outline after its exterior's or before it, so exteriors are made first.
    for index, contour in enumerate(contours):
        if hierarchy[0][index][3] < 0:
            exteriors[index] = message.polygons.polygons.add(exterior=_ring(contour))
    for index, contour in enumerate(contours):
        parent = int(hierarchy[0][index][3])
        if parent >= 0:
            exteriors[parent].holes.append(_ring(contour))


def _ring(contour: npt.NDArray[Any]) -> pb.Ring:
    # OpenCV counts pixels, the API's coordinates begin at a pixel's corner: its centre is half a pixel on.
    return pb.Ring(coordinates=(contour.reshape(-1) + 0.5).tolist())


def _fill_low_res_logits(mask: Mask, message: pb.Mask) -> None:
    message.low_res_logits.CopyFrom(low_res_message(mask.low_res_mask))


_FORMS: dict[int, Callable[[Mask, pb.Mask], None]] = {
    pb.MASK_FORMAT_UNSPECIFIED: _fill_coco_rle,
    pb.MASK_FORMAT_COCO_RLE: _fill_coco_rle,
    pb.MASK_FORMAT_PNG: _fill_png,
    pb.MASK_FORMAT_POLYGONS: _fill_polygons,
    pb.MASK_FORMAT_LOW_RES_LOGITS: _fill_low_res_logits,
}
