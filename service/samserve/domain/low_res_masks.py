"""Operations on low-resolution logits without upsampling: cheap, and accurate to one low-resolution pixel (except thin
strips).

Logits are float32 `[M, M]` over the model's square input. Points and boxes are (x, y) in pixels of the original
image.
"""

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain import homography as plane
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.homography import Homography
from samserve.domain.masks import MASK_THRESHOLD

LowResMask = npt.NDArray[np.float32]


def contains(
    low_res_mask: LowResMask | npt.NDArray[np.bool_], frame: ImageFrame, point: npt.NDArray[np.float64]
) -> bool:
    """True if a point of the image lies in the mask, given as logits or bool. False for points outside the image."""
    height, width = frame.original_size
    x, y = point
    if not (0 <= x <= width and 0 <= y <= height):
        return False
    column, row = (frame.to_input(point) * (len(low_res_mask) / frame.image_size)).astype(np.intp)
    last = len(low_res_mask) - 1
    return bool(low_res_mask[min(row, last), min(column, last)] > MASK_THRESHOLD)


def visible(low_res_mask: LowResMask, frame: ImageFrame) -> npt.NDArray[np.bool_]:
    """The mask, bool `[M, M]`, without the padding of the square input."""
    rows, columns = _extent(len(low_res_mask), frame)
    mask = low_res_mask > MASK_THRESHOLD
    mask[rows:] = False
    mask[:, columns:] = False
    return mask


def seen_from(
    low_res_mask: LowResMask, frame: ImageFrame, to_frame: Homography, other: ImageFrame
) -> npt.NDArray[np.bool_]:
    """The mask as seen from another frame of the camera, bool `[M, M]` over that frame's square input.

    Args:
        to_frame: homography from pixels of the other frame to pixels of the mask's frame.
    """
    size = len(low_res_mask)
    steps = np.arange(size, dtype=np.float64) + 0.5
    centres = np.stack(np.meshgrid(steps, steps), axis=-1)
    points = plane.apply(to_frame, _to_image(centres, size, other))
    height, width = frame.original_size
    inside = ((points >= 0) & (points < [width, height])).all(axis=-1) & visible(np.ones_like(low_res_mask), other)
    cells = (frame.to_input(points[inside]) * (size / frame.image_size)).astype(np.intp)
    seen = np.zeros((size, size), dtype=np.bool_)
    columns, rows = np.clip(cells, 0, size - 1).T
    seen[inside] = low_res_mask[rows, columns] > MASK_THRESHOLD
    return seen


def overlap(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Intersection over union; 0 if both masks are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def bounding_box(mask: npt.NDArray[np.bool_], frame: ImageFrame) -> npt.NDArray[np.float64] | None:
    """Box XYXY of a `visible` mask in pixels of the image, clipped to the image; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)
    return _to_image(corners, len(mask), frame).reshape(4)


def interior_point(mask: npt.NDArray[np.bool_], frame: ImageFrame) -> npt.NDArray[np.float64] | None:
    """The point of a `visible` mask that is farthest from its edge; None for an empty mask."""
    # Everything beyond the array counts as outside.
    distances = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    farthest = distances.max()
    if not farthest:
        return None
    ys, xs = np.nonzero(distances == farthest)
    # Of several farthest pixels, choose the one nearest their centre: the middle of a long object instead of its end.
    nearest = np.argmin(np.hypot(ys - ys.mean(), xs - xs.mean()))
    return _to_image(np.array([xs[nearest] + 0.5, ys[nearest] + 0.5]), len(mask), frame)


def _extent(low_res_size: int, frame: ImageFrame) -> Size:
    height, width = frame.input_size
    scale = low_res_size / frame.image_size
    return Size(int(np.ceil(height * scale)), int(np.ceil(width * scale)))


def _to_image(points: npt.NDArray[np.float64], low_res_size: int, frame: ImageFrame) -> npt.NDArray[np.float64]:
    original, inside = frame.original_size, frame.input_size
    unit = frame.image_size / low_res_size
    scale = np.array([original.width / inside.width, original.height / inside.height])
    mapped: npt.NDArray[np.float64] = np.clip(points * unit * scale, 0, [original.width, original.height])
    return mapped
