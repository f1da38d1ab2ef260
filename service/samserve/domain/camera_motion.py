"""Estimation of the camera's motion between two frames, and mapping masks between frames."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain import homography as plane
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.homography import Homography
from samserve.domain.low_res_masks import bounding_box, visible
from samserve.domain.masks import MASK_THRESHOLD, STABILITY_SCORE_OFFSET, Mask

_CORNERS = 200
_MIN_MATCHES = 12
_MIN_INLIERS = 0.5
_REPROJECTION_PIXELS = 1.5
_ROUND_TRIP_PIXELS = 1.0
_WINDOW = (15, 15)
_PYRAMID_LEVELS = 4

Points = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A frame scaled down for comparisons.

    Attributes:
        gray: uint8 `[h, w]`, the whole frame scaled down.
        original_size: of the frame, after EXIF orientation.
    """

    gray: npt.NDArray[np.uint8]
    original_size: Size


def warp_mask(
    low_res_mask: npt.NDArray[np.float32],
    iou_prediction: float,
    keyframe: ImageFrame,
    to_keyframe: Homography,
    size: Size,
) -> Mask:
    """Compute the mask of another frame from a keyframe's logits, with one bilinear resampling of the region that the
    mask can cover.

    Args:
        low_res_mask: float32 `[M, M]` logits over the keyframe's square input.
        to_keyframe: homography from pixels of the returned mask to pixels of the keyframe.
        size: (H, W) of the returned mask in pixels.
    """
    possible = visible(low_res_mask + np.float32(STABILITY_SCORE_OFFSET), keyframe)
    box = bounding_box(possible, keyframe)
    window = None if box is None else _reach(box, keyframe, to_keyframe, size)
    if window is None:
        return Mask(size, np.zeros((0, 0), dtype=np.bool_), 0, 0, iou_prediction, 0.0, low_res_mask)
    left, top, right, bottom = window
    unit = len(low_res_mask) / keyframe.image_size
    scale = plane.scaling(
        keyframe.input_size.width / keyframe.original_size.width * unit,
        keyframe.input_size.height / keyframe.original_size.height * unit,
    )
    # OpenCV's integer coordinates are pixel centres; this project's are pixel corners.
    to_low_res = _shift(-0.5, -0.5) @ scale @ to_keyframe @ _shift(left + 0.5, top + 0.5)
    logits = cv2.warpPerspective(
        low_res_mask,
        to_low_res,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    logits[_outside(to_keyframe, keyframe.original_size, window)] = -np.inf
    inner = np.count_nonzero(logits > MASK_THRESHOLD + STABILITY_SCORE_OFFSET)
    outer = np.count_nonzero(logits > MASK_THRESHOLD - STABILITY_SCORE_OFFSET)
    mask = np.asfortranarray(logits > MASK_THRESHOLD)
    return Mask(size, mask, top, left, iou_prediction, inner / outer if outer else 0.0, low_res_mask)


def estimate_motion(keyframe: Thumbnail, frame: Thumbnail, guess: Homography) -> Homography | None:
    """Estimate the homography from pixels of the frame to pixels of the keyframe. Returns None if the frames do not
    match.

    Corners of the keyframe are tracked into the frame and back by pyramidal Lucas-Kanade. RANSAC fits a homography to
    the corners that return to where they started.

    Args:
        guess: an initial estimate, such as the previous frame's.
    """
    to_thumbnail = plane.scaling(*_scale(keyframe))
    corners = cv2.goodFeaturesToTrack(keyframe.gray, _CORNERS, qualityLevel=0.01, minDistance=6)
    if corners is None or len(corners) < _MIN_MATCHES:
        return None
    known: Points = np.asarray(corners, dtype=np.float32).reshape(-1, 2)
    # From here on everything is in pixels of the thumbnails.
    forward = to_thumbnail @ plane.inverse(guess) @ plane.inverse(to_thumbnail)
    expected = plane.apply(forward, known.astype(np.float64))
    start = np.where(np.isfinite(expected), expected, known).astype(np.float32)
    seen, found = _follow(keyframe.gray, frame.gray, known, start)
    back, returned = _follow(frame.gray, keyframe.gray, seen, known.copy())
    good = found & returned & (np.linalg.norm(back - known, axis=1) < _ROUND_TRIP_PIXELS)
    if np.count_nonzero(good) < _MIN_MATCHES:
        return None
    estimate, inliers = cv2.findHomography(seen[good], known[good], cv2.RANSAC, _REPROJECTION_PIXELS)
    if estimate is None or np.mean(inliers) < _MIN_INLIERS:
        return None
    to_keyframe: Homography = plane.inverse(to_thumbnail) @ estimate @ to_thumbnail
    return to_keyframe if plane.is_plausible(to_keyframe, frame.original_size) else None


def _follow(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], points: Points, start: Points
) -> tuple[Points, npt.NDArray[np.bool_]]:
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        points,
        start,
        winSize=_WINDOW,
        maxLevel=_PYRAMID_LEVELS,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(moved, dtype=np.float32), np.asarray(status).reshape(-1) > 0


def _scale(thumbnail: Thumbnail) -> tuple[float, float]:
    (height, width), original = thumbnail.gray.shape, thumbnail.original_size
    return width / original.width, height / original.height


def _reach(
    box: npt.NDArray[np.float64], keyframe: ImageFrame, to_keyframe: Homography, size: Size
) -> tuple[int, int, int, int] | None:
    """The window of the frame, XYXY, that a box of the keyframe covers, or None if it covers none."""
    x0, y0, x1, y1 = box
    # Bilinear interpolation extends a mask by one low-resolution pixel, which is at most eight pixels of SAM's input.
    margin = max(keyframe.original_size) / 32
    around = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) + margin * np.array(
        [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    )
    covered = plane.apply(plane.inverse(to_keyframe), around)
    if not np.isfinite(covered).all():
        return 0, 0, size.width, size.height
    low = np.clip(np.floor(covered.min(axis=0)), 0, [size.width, size.height]).astype(int)
    high = np.clip(np.ceil(covered.max(axis=0)), 0, [size.width, size.height]).astype(int)
    return None if (low >= high).any() else (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _outside(to_keyframe: Homography, keyframe: Size, window: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    """The pixels of the window that lie outside the keyframe."""
    left, top, right, bottom = window
    inside = np.zeros((bottom - top, right - left), dtype=np.uint8)
    view = plane.apply(plane.inverse(to_keyframe), plane.corners(keyframe)) - [left, top]
    if not np.isfinite(view).all():
        return inside > 0
    cv2.fillConvexPoly(inside, np.round(view - 0.5).astype(np.int32), 1)
    return np.asarray(inside == 0)


def _shift(x: float, y: float) -> Homography:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
