"""Removing what is too small to be meant: holes in a mask, and regions apart from it.

The rule of SAM's published generator (`remove_small_regions`): first holes below the area are filled, then regions
below it are removed; where all regions are below it, the largest stays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from samserve.domain.masks import Mask


@dataclass(frozen=True, slots=True, eq=False)
class ConnectedComponents:
    """What hangs together in a mask, over edges or corners.

    Attributes:
        labels: int32 `[H, W]`; 0 where the mask is false, else the number of the component, from 1.
        areas: int64 `[components]`, pixels of component 1, 2, ...
    """

    labels: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int64]

    def choose(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The pixels of some components, chosen by bool `[components]`."""
        picked: npt.NDArray[np.bool_] = np.concatenate([[False], chosen])[self.labels]
        return picked


def remove_small_regions(
    mask: Mask, min_area: int, label: Callable[[npt.NDArray[np.bool_]], ConnectedComponents]
) -> Mask:
    """The mask without holes and regions of fewer than `min_area` pixels; the same object where it has none.

    Args:
        label: numbers the connected components of a mask, bool `[H, W]`.
    """
    padded = _pad(mask, min_area)
    background = label(~padded.window)
    small_holes = background.areas < min_area
    window = padded.window | background.choose(small_holes) if small_holes.any() else padded.window
    regions = label(window)
    large = regions.areas >= min_area
    if large.all() and not small_holes.any():
        return mask
    if not large.any():
        large[np.argmax(regions.areas)] = True
    return replace(padded, window=np.asfortranarray(regions.choose(large)))


def _pad(mask: Mask, min_area: int) -> Mask:
    """The mask in a larger window, with all of the image beyond a side, or `min_area` pixels of it.

    Background that goes on outside the window is then seen to be as large as it has to be.
    """
    (height, width), (rows, columns) = mask.original_size, mask.window.shape
    bottom, right = height - mask.top - rows, width - mask.left - columns
    down, across = math.ceil(min_area / max(1, columns)), math.ceil(min_area / max(1, rows))
    top, bottom, left, right = min(mask.top, down), min(bottom, down), min(mask.left, across), min(right, across)
    # Of equally large regions the first is kept, and labelers that go by blocks of 2 x 2 pixels count them from there.
    top, left = top + (mask.top - top) % 2, left + (mask.left - left) % 2
    window = np.pad(mask.window, ((top, bottom), (left, right)))
    return replace(mask, window=window, top=mask.top - top, left=mask.left - left)
