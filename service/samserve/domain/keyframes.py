"""Policy for keyframes: when a frame must be encoded, and when an earlier keyframe is still valid for it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.domain import homography as plane
from samserve.domain.geometry import Size
from samserve.domain.homography import Homography
from samserve.domain.sampling import bilinear

_CELL_PIXELS = 8


@dataclass(frozen=True, slots=True)
class KeyframePolicy:
    """Limits of the difference between a frame and its keyframe.

    Attributes:
        max_scene_change: `scene_change` from which on the keyframe shows something else.
        max_motion: `motion` from which on too much of the frame lies outside the keyframe, or looks different.
        max_age_seconds: by the clock, for what the other two cannot see.
        max_encodes_per_second: of one stream; what is wanted beyond waits, and the newest frame is taken then.
    """

    max_scene_change: float = 0.06
    max_motion: float = 0.1
    max_age_seconds: float = 5.0
    max_encodes_per_second: float = 2.0

    def is_outdated(self, change: float, motion: float, age_seconds: float) -> bool:
        """Whether the keyframe is stale."""
        return change > self.max_scene_change or motion > self.max_motion or age_seconds > self.max_age_seconds


def motion(to_keyframe: Homography, size: Size) -> float:
    """Camera motion: mean shift of the frame's corners, in frame diagonals. Infinite if a corner is behind the
    camera."""
    corners = plane.corners(size)
    shift = np.linalg.norm(plane.apply(to_keyframe, corners) - corners, axis=1).mean()
    return float(shift / np.hypot(*size)) if np.isfinite(shift) else float("inf")


def scene_change(
    keyframe: npt.NDArray[np.uint8], frame: npt.NDArray[np.uint8], to_keyframe: Homography, size: Size
) -> float:
    """How much of what two frames both show looks different, from 0 to 1; 1 where they share nothing.

    The mean absolute difference of brightness between the keyframe and the frame laid over it, by cells of eight
    thumbnail pixels, without the difference of their means, which is exposure.

    Args:
        keyframe: uint8 grey thumbnail `[h, w]`.
        frame: uint8 grey thumbnail `[h, w]`.
        to_keyframe: from pixels of the frame to pixels of the keyframe.
        size: of both frames.
    """
    known, seen = _cells(keyframe), _cells(frame)
    rows, columns = seen.shape
    ys, xs = np.mgrid[:rows, :columns] + 0.5
    scale = np.array([size.width / columns, size.height / rows])
    points = plane.apply(to_keyframe, np.stack([xs, ys], axis=-1) * scale) / scale - 0.5
    x, y = points[..., 0], points[..., 1]
    inside = (x >= 0) & (x <= columns - 1) & (y >= 0) & (y <= rows - 1)
    if np.count_nonzero(inside) < inside.size / 8:
        return 1.0
    difference = seen[inside] - bilinear(known, y[inside], x[inside])
    return float(np.abs(difference - difference.mean()).mean() / 255)


def _cells(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    cell = max(1, min(_CELL_PIXELS, min(gray.shape) // 2))
    rows, columns = gray.shape[0] // cell, gray.shape[1] // cell
    cut = gray[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
    means: npt.NDArray[np.float64] = cut.mean(axis=(1, 3))
    return means
