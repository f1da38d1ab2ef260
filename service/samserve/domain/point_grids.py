"""Where the automatic mask generator looks: crops of the image in layers, and a grid of points on each.

Layer 0 is the whole image; layer i has 2^i by 2^i crops that overlap. Formulas of SAM's paper (appendix on automatic
mask generation) and of its published generator; each crop is encoded as an image of its own.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import CropBox, Size


@dataclass(frozen=True, slots=True)
class Crop:
    """One part of the image that is searched.

    Attributes:
        box: in pixels of the image.
        layer: 0 for the whole image.
    """

    box: CropBox
    layer: int


def layer_points_per_side(points_per_side: int, layer: int, downscale_factor: int) -> int:
    """How many points the grid of one layer has on each side; 0 where nothing is left."""
    return int(points_per_side / downscale_factor**layer)


def point_grid(points_per_side: int) -> npt.NDArray[np.float64]:
    """Points `[points_per_side^2, 2]` (x, y) in [0, 1], row by row, each in the middle of its cell."""
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    across, down = np.meshgrid(steps, steps)
    return np.stack([across.ravel(), down.ravel()], axis=1)


def crop_layers(original_size: Size, n_layers: int, overlap_ratio: float) -> list[Crop]:
    """All crops, the smallest first and the whole image last.

    Where masks of two crops are duplicates, the smaller crop's is kept. In this order nothing that comes later can take
    back what was kept, so that masks can be sent after each crop.

    Args:
        n_layers: beside the whole image.
        overlap_ratio: how much of the image's shorter side neighbours in the first layer share; half of it in the next.
    """
    height, width = original_size
    crops = [Crop(CropBox.whole(original_size), 0)]
    for layer in range(1, n_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        columns = _spans(width, per_side, overlap)
        rows = _spans(height, per_side, overlap)
        crops += [Crop(CropBox(x0, y0, x1, y1), layer) for x0, x1 in columns for y0, y1 in rows]
    return sorted(crops, key=lambda crop: math.prod(crop.box.size))


def near_crop_edge(box: npt.NDArray[np.float64], crop_box: CropBox, original_size: Size, distance: float) -> bool:
    """Whether a box, XYXY in the image, comes near an edge of its crop that is no edge of the image.

    What lies there is cut off by the crop; another crop shows it whole.
    """
    image_box = CropBox.whole(original_size)
    near_crop = np.abs(box - np.array(crop_box)) <= distance
    near_image = np.abs(box - np.array(image_box)) <= distance
    return bool((near_crop & ~near_image).any())


def _spans(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Equal spans along one side; the last may be shorter, and those that would begin outside are left out."""
    span = math.ceil((overlap * (count - 1) + length) / count)
    starts = [(span - overlap) * index for index in range(count)]
    return [(start, min(start + span, length)) for start in starts if start < length]
