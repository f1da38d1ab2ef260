"""Masks of the fake gateway: functions from prompts to masks, and conversion of masks to messages."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from samserve.client.request import Prompt
from samserve.client.response import read_xyxy
from samserve.client.rle import encode_rle
from samserve.v1 import segmentation_pb2 as pb

BoolMask: TypeAlias = npt.NDArray[np.bool_]
MaskFunction: TypeAlias = Callable[[Prompt, tuple[int, int]], Sequence[BoolMask]]
"""Returns the masks, bool `[H, W]`, of a prompt in pixels on an image of size (H, W), the best first. All are returned
with `multimask_output`, otherwise only the first."""

LOW_RES_SIZE = 64
_LOGIT = 8.0


def box_masks(prompt: Prompt, size: tuple[int, int]) -> list[BoolMask]:
    """Return the filled box of the prompt, and two larger ones.

    Without a box, return squares around the first foreground point or, for a text, around the centre of the image. The
    side of the first square is a quarter of the image's shorter side.
    """
    height, width = size
    if prompt.box is not None:
        x0, y0, x1, y1 = np.asarray(prompt.box, dtype=float)
    else:
        coords = np.asarray(prompt.point_coords if prompt.point_coords is not None else [(width / 2, height / 2)])
        labels = np.ones(len(coords)) if prompt.point_labels is None else np.asarray(prompt.point_labels)
        x, y = coords[np.argmax(labels)]
        half = min(size) / 8
        x0, y0, x1, y1 = x - half, y - half, x + half, y + half
    masks = []
    for margin in (0.0, 0.25, 0.5):
        dx, dy = margin * (x1 - x0), margin * (y1 - y0)
        mask = np.zeros(size, dtype=np.bool_)
        mask[max(0, round(y0 - dy)) : max(0, round(y1 + dy)), max(0, round(x0 - dx)) : max(0, round(x1 + dx))] = True
        masks.append(mask)
    return masks


def mask_messages(
    masks: Sequence[BoolMask],
    low_res: bool = False,
    space: "pb.CoordinateSpace.ValueType" = pb.COORDINATE_SPACE_PIXELS,
) -> list[pb.Mask]:
    """Convert masks to messages with decreasing `iou_prediction`, and `bbox` in this coordinate space."""
    messages = [_mask_message(mask, 0.9 / (index + 1), low_res) for index, mask in enumerate(masks)]
    if space == pb.COORDINATE_SPACE_NORMALIZED:
        for message, (height, width) in zip(messages, (mask.shape for mask in masks), strict=True):
            box = message.bbox
            box.x0, box.y0, box.x1, box.y1 = box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height
    return messages


def prompt_in_pixels(message: pb.Prompt, size: tuple[int, int], space: "pb.CoordinateSpace.ValueType") -> Prompt:
    """Convert a prompt message to the client's `Prompt`."""
    normalized = space == pb.COORDINATE_SPACE_NORMALIZED
    width, height = (size[1], size[0]) if normalized else (1, 1)
    points = [(point.x * width, point.y * height) for point in message.points]
    labels = [int(point.label == pb.POINT_LABEL_FOREGROUND) for point in message.points]
    box = np.array(read_xyxy(message.box)) * (width, height, width, height) if message.HasField("box") else None
    return Prompt(points or None, labels or None, box, text=message.text if message.HasField("text") else None)


def _mask_message(mask: BoolMask, iou_prediction: float, low_res: bool) -> pb.Mask:
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    message = pb.Mask(
        coco_rle=pb.CocoRle(counts=encode_rle(mask), size=pb.Size(height=height, width=width)),
        iou_prediction=iou_prediction,
        stability_score=0.95,
        bbox=pb.Box(x0=columns[0], y0=rows[0], x1=columns[-1] + 1, y1=rows[-1] + 1) if len(rows) else pb.Box(),
        area=int(mask.sum()),
    )
    if low_res:
        ys, xs = (np.arange(LOW_RES_SIZE) * max(mask.shape) // LOW_RES_SIZE for _ in range(2))
        # As the model sees the image: its longer side fills the square, the rest is empty.
        square = np.zeros((max(mask.shape), max(mask.shape)), dtype=np.bool_)
        square[:height, :width] = mask
        logits = np.where(square[np.ix_(ys, xs)], _LOGIT, -_LOGIT).astype("<f2")
        message.low_res_mask.CopyFrom(pb.LowResMask(data=logits.tobytes(), size=LOW_RES_SIZE))
    return message
