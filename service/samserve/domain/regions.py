"""Removal of small regions: holes in a mask, and regions separate from it.

The rule of SAM's published generator (`remove_small_regions`): first, holes smaller than the area are filled; then,
regions smaller than it are removed. If all regions are smaller, the largest is kept.
"""

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.masks import Mask


def remove_small_regions(mask: Mask, min_area: int) -> Mask:
    """Remove holes and regions of fewer than `min_area` pixels. Returns the same object if there are none."""
    padded = _pad(mask, min_area)
    labels, areas = _components(~padded.window)
    small_holes = areas < min_area
    window = padded.window | _chosen(labels, small_holes) if small_holes.any() else padded.window
    labels, areas = _components(window)
    large = areas >= min_area
    if large.all() and not small_holes.any():
        return mask
    if not large.any():
        large[np.argmax(areas)] = True
    return replace(padded, window=np.asfortranarray(_chosen(labels, large)))


def _components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Number the 8-connected components of a mask, int32 `[H, W]` from 1, and count the pixels of each."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels, dtype=np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], dtype=np.int32)


def _chosen(labels: npt.NDArray[np.int32], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of the components selected by bool `[components]`."""
    picked: npt.NDArray[np.bool_] = np.concatenate([[False], chosen])[labels]
    return picked


def _pad(mask: Mask, min_area: int) -> Mask:
    """Pad the mask's window on each side by the rest of the image, but by no more than `min_area` pixels.

    Background that continues outside the window then counts as large enough.
    """
    (height, width), (rows, columns) = mask.original_size, mask.window.shape
    bottom, right = height - mask.top - rows, width - mask.left - columns
    down, across = math.ceil(min_area / max(1, columns)), math.ceil(min_area / max(1, rows))
    top, bottom, left, right = min(mask.top, down), min(bottom, down), min(mask.left, across), min(right, across)
    # Of equally large regions the first is kept, and OpenCV numbers them by blocks of 2 x 2 pixels from there.
    top, left = top + (mask.top - top) % 2, left + (mask.left - left) % 2
    window = np.pad(mask.window, ((top, bottom), (left, right)))
    return replace(mask, window=window, top=mask.top - top, left=mask.left - left)
