"""Tracking an object from one frame of a video to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame
from samserve.domain.low_res_masks import LowResMask, bounding_box, interior_point, overlap, visible
from samserve.domain.masks import MASK_THRESHOLD
from samserve.domain.prompts import ObjectPrompt, PointLabel

_BOX_MARGIN = 0.05
"""Margin added to the box on each side, relative to its width and height, because objects move."""

_REACH = 4
"""A cell of the embedding, in pixels of a low-resolution mask."""


@dataclass(frozen=True, slots=True)
class TrackingLimits:
    """When a mask is no longer the object.

    Attributes:
        min_overlap: IoU with the mask of the frame before.
        min_certainty: predicted IoU as a share of the one that the object started with: models differ in how sure they
            are, and so do objects.
        min_likeness: cosine between the `appearance` of the mask and that of the object when it was last seen. Given a
            mask, the decoder finds it again even in an empty picture; its features do not.
        max_growth: how many times larger or smaller than on any of the last `growth_frames` on which it was seen. A
            mask that runs into its surroundings does so in steps that each pass `min_overlap`. An object that comes
            nearer doubles within eight frames, a quarter of a second of video, only if its distance falls by 3/10.
    """

    min_overlap: float = 0.3
    min_certainty: float = 0.5
    min_likeness: float = 0.85
    max_growth: float = 2.0
    growth_frames: int = 8


def following_prompt(low_res_mask: LowResMask, frame: ImageFrame) -> ObjectPrompt | None:
    """The prompt for the next frame: logits, box and an interior point. None for an empty mask."""
    mask = visible(low_res_mask, frame)
    box, point = bounding_box(mask, frame), interior_point(mask, frame)
    if box is None or point is None:
        return None
    margin = np.tile(_BOX_MARGIN * (box[2:] - box[:2]), 2) * [-1, -1, 1, 1]
    height, width = frame.original_size
    widened = np.clip(box + margin, 0, [width, height, width, height])
    label = np.array([PointLabel.FOREGROUND], dtype=np.int32)
    return ObjectPrompt(point[None], label, widened, low_res_mask)


def appearance(embedding: Embedding, low_res_mask: LowResMask) -> npt.NDArray[np.float32]:
    """Direction of the mean of the image's features inside a mask, `[C]`; zero for an empty mask."""
    channels, rows, columns = embedding.values.shape
    mask = visible(low_res_mask, embedding.frame)
    cells = mask.reshape(rows, len(mask) // rows, columns, len(mask) // columns).mean(axis=(1, 3))
    inside = embedding.values.reshape(channels, -1).astype(np.float32) @ cells.astype(np.float32).reshape(-1)
    length = np.linalg.norm(inside)
    direction: npt.NDArray[np.float32] = inside / length if length else inside
    return direction


def named_by(prompt: ObjectPrompt, low_res_size: int, frame: ImageFrame) -> npt.NDArray[np.bool_]:
    """The place that a prompt names, bool `[M, M]`: its foreground points, and what its box and its mask hold."""
    place = (
        np.zeros((low_res_size, low_res_size), dtype=np.bool_) if prompt.mask_input is None else prompt.mask_input > 0
    )
    scale = low_res_size / frame.image_size
    last = low_res_size - 1
    for point, label in zip(prompt.point_coords, prompt.point_labels, strict=True):
        if label == PointLabel.FOREGROUND:
            column, row = np.clip((frame.to_input(point) * scale).astype(np.intp), 0, last)
            place[row, column] = True
    if prompt.box is not None:
        corners = np.clip((frame.to_input(prompt.box.reshape(2, 2)) * scale).astype(np.intp), 0, last)
        (left, top), (right, bottom) = corners
        place[top : bottom + 1, left : right + 1] = True
    return place


def keep_connected(low_res_mask: LowResMask, place: npt.NDArray[np.bool_]) -> LowResMask:
    """The mask without regions apart from a place: an object does not appear elsewhere from one frame to the next.

    A region within one cell of the embedding of the place stays, such as a part that comes out from behind a pole.
    Where no region is near, the mask stays as it is.

    Args:
        low_res_mask: float32 logits `[M, M]`.
        place: bool `[M, M]`, such as the object's last mask.

    Returns:
        A copy, with the signs of what is apart turned.
    """
    mask = (low_res_mask > MASK_THRESHOLD).astype(np.uint8)
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    reach = np.ones((2 * _REACH + 1, 2 * _REACH + 1), dtype=np.uint8)
    near = np.unique(labels[cv2.dilate(place.astype(np.uint8), reach) > 0])
    kept = np.isin(labels, near[near > 0])
    if not kept.any() or count <= 2:
        return low_res_mask.copy()
    separate: LowResMask = np.where((labels > 0) & ~kept, -low_res_mask, low_res_mask)
    return separate


def choose(
    candidates: npt.NDArray[np.float32],
    iou_predictions: npt.NDArray[np.float32],
    last: LowResMask,
    frame: ImageFrame,
    started_with: float,
    areas: Sequence[int],
    limits: TrackingLimits,
) -> tuple[int | None, float]:
    """Which candidate is the object, by predicted IoU times overlap with the last mask.

    Args:
        candidates: float32 logits `[K, M, M]`.
        iou_predictions: float32 `[K]`.
        last: float32 logits `[M, M]` of the frame where it was last seen.
        frame: of both frames.
        started_with: predicted IoU of the object's first mask.
        areas: of its last masks, in their pixels; at least one.

    Returns:
        Its index, or None where no candidate passes the limits; and the best one's overlap.
    """
    before = visible(last, frame)
    masks = [visible(candidate, frame) for candidate in candidates]
    overlaps = np.array([overlap(before, mask) for mask in masks])
    sizes = np.array([np.count_nonzero(mask) for mask in masks])
    alike = (sizes <= limits.max_growth * min(areas)) & (limits.max_growth * sizes >= max(areas))
    # Candidates of a very different size are considered only if there are no others.
    best = int(np.lexsort((overlaps * np.maximum(iou_predictions, 0), alike))[-1])
    certain = iou_predictions[best] >= limits.min_certainty * started_with
    passes = alike[best] and certain and overlaps[best] >= limits.min_overlap
    return best if passes else None, float(overlaps[best])
