"""Removing what is too small to be meant: holes in a mask, and regions apart from it.

The rule of SAM's published generator (`remove_small_regions`): first holes below the area are filled, then regions
below it are removed; where all regions are below it, the largest stays.
"""

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.masks import Mask


def remove_small_regions(mask: Mask, min_area: int) -> Mask:
    """The mask without holes and regions of fewer than `min_area` pixels; the same object where it has none."""
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
    """Numbers the 8-connected components of a mask, int32 `[H, W]` from 1, and counts the pixels of each."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels, dtype=np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], dtype=np.int32)


def _chosen(labels: npt.NDArray[np.int32], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of some components, chosen by bool `[components]`."""
    picked: npt.NDArray[np.bool_] = np.concatenate([[False], chosen])[labels]
    return picked


def _pad(mask: Mask, min_area: int) -> Mask:
    """The mask in a larger window, with all of the image beyond a side, or `min_area` pixels of it.

    Background that goes on outside the window is then seen to be as large as it has to be.
    """
    (height, width), (rows, columns) = mask.original_size, mask.window.shape
    bottom, right = height - mask.top - rows, width - mask.left - columns
    down, across = math.ceil(min_area / max(1, columns)), math.ceil(min_area / max(1, rows))
    top, bottom, left, right = min(mask.top, down), min(bottom, down), min(mask.left, across), min(right, across)
    # Of equally large regions the first is kept, and OpenCV counts them by blocks of 2 x 2 pixels from there.
    top, left = top + (mask.top - top) % 2, left + (mask.left - left) % 2
    window = np.pad(mask.window, ((top, bottom), (left, right)))
    return replace(mask, window=window, top=mask.top - top, left=mask.left - left)
