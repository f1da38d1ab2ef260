"""Prompts with SAM's arguments, and their conversion to requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from samserve.client.errors import InvalidRequest
from samserve.client.result import Detection
from samserve.v1 import segmentation_pb2 as pb

_LABELS = {1: pb.POINT_LABEL_FOREGROUND, 0: pb.POINT_LABEL_BACKGROUND}
_M = TypeVar("_M")

_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One object to segment: any combination of points, a box and logits of an earlier result, or a text alone.

    Coordinates are pixels of the image after EXIF orientation, (x, y), origin at the top left corner of the top left
    pixel; or [0, 1] across width and height where the call says `normalized=True`.

    Attributes:
        point_coords: `[N, 2]` (x, y).
        point_labels: `[N]`, 1 foreground or 0 background; all foreground where it is None.
        box: `[4]` XYXY.
        mask_input: `[M, M]` or `[1, M, M]` logits, such as one of `Segmentation.low_res_masks`.
        detection: what a detector says of the box; comes back with the answer.
        text: what the object is, such as `a dog`.
    """

    point_coords: npt.ArrayLike | None = None
    point_labels: npt.ArrayLike | None = None
    box: npt.ArrayLike | None = None
    mask_input: npt.ArrayLike | None = None
    detection: Detection | None = None
    text: str | None = None


def message_of(kind: Callable[..., _M], **fields: Any) -> _M:
    """Build a message of this type.

    Raises:
        InvalidRequest: names the first field that does not accept its value.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except (TypeError, ValueError) as reason:
                raise InvalidRequest(name, f"invalid value {value!r}: {reason}") from None
        raise AssertionError("each field alone is right") from error


def segment_request(
    image: pb.Image, prompts: Sequence[pb.Prompt], *, multimask_output: bool, normalized: bool, low_res_masks: bool
) -> pb.SegmentRequest:
    """Build the request for these prompts on this image. Masks are returned as COCO RLE."""
    return pb.SegmentRequest(
        image=image,
        prompts=prompts,
        multimask_output=multimask_output,
        coordinate_space=pb.COORDINATE_SPACE_NORMALIZED if normalized else pb.COORDINATE_SPACE_PIXELS,
        mask_format=pb.MASK_FORMAT_COCO_RLE,
        include_low_res_masks=low_res_masks,
    )


def prompt_message(prompt: Prompt) -> pb.Prompt:
    """Convert a prompt to its message. Shapes are checked here, values by the server.

    Raises:
        InvalidRequest: an array has the wrong shape, or a label is neither 0 nor 1.
    """
    message = pb.Prompt(points=_points(prompt))
    if prompt.box is not None:
        x0, y0, x1, y1 = _floats("box", prompt.box, (4,), "[4]: x0, y0, x1, y1")
        message.box.CopyFrom(pb.Box(x0=x0, y0=y0, x1=x1, y1=y1))
    if prompt.mask_input is not None:
        message.mask_input.CopyFrom(_low_res_mask(prompt.mask_input))
    if prompt.detection is not None:
        message.detection.category_id = prompt.detection.category_id
        message.detection.score = prompt.detection.score
    if prompt.text is not None:
        message.text = prompt.text
    return message


def _points(prompt: Prompt) -> list[pb.Point]:
    if prompt.point_coords is None:
        if prompt.point_labels is not None:
            raise InvalidRequest("point_labels", "requires point_coords")
        return []
    coords = _floats("point_coords", prompt.point_coords, (-1, 2), "[N, 2], an (x, y) per point")
    given = np.ones(len(coords)) if prompt.point_labels is None else prompt.point_labels
    labels = _floats("point_labels", given, (len(coords),), f"[{len(coords)}], one per point")
    for label in labels:
        if label not in _LABELS:
            raise InvalidRequest("point_labels", f"must be 1 (foreground) or 0 (background), got {label:g}")
    return [pb.Point(x=x, y=y, label=_LABELS[label]) for (x, y), label in zip(coords, labels, strict=True)]


def _low_res_mask(mask_input: npt.ArrayLike) -> pb.LowResMask:
    logits = np.asarray(mask_input, dtype=np.float32)
    logits = logits[0] if logits.ndim == 3 and len(logits) == 1 else logits
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise InvalidRequest("mask_input", f"must have shape [M, M] or [1, M, M], got {list(logits.shape)}")
    # A logit beyond float16's range is equivalent to the largest value within it; infinity would be rejected.
    values = np.clip(logits, -_FLOAT16_MAX, _FLOAT16_MAX).astype("<f2")
    return pb.LowResMask(data=values.tobytes(), size=len(values))


def _floats(name: str, values: npt.ArrayLike, shape: tuple[int, ...], meaning: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidRequest(name, f"must be numbers of shape {meaning}") from None
    fits = array.ndim == len(shape) and all(want in (-1, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits:
        raise InvalidRequest(name, f"must have shape {meaning}, got {list(array.shape)}")
    return array
