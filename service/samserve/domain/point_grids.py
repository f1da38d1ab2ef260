"""Search regions of the automatic mask generator: layers of crops, with a grid of points on each crop.

Layer 0 is the whole image; layer i has 2^i by 2^i overlapping crops. The formulas are those of SAM's paper (appendix on
automatic mask generation) and of its published generator. Each crop is encoded as a separate image.
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
    """Number of grid points per side in one layer; 0 if none are left."""
    return int(points_per_side / downscale_factor**layer)


def point_grid(points_per_side: int) -> npt.NDArray[np.float64]:
    """Points `[points_per_side^2, 2]` (x, y) in [0, 1], row by row, each at the centre of its cell."""
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    across, down = np.meshgrid(steps, steps)
    return np.stack([across.ravel(), down.ravel()], axis=1)


def crop_layers(original_size: Size, n_layers: int, overlap_ratio: float) -> list[Crop]:
    """All crops, the smallest first and the whole image last.

    Of two duplicates in different crops, the one of the smaller crop is kept. In this order no later crop revokes a
    mask, so masks can be sent after each crop.

    Args:
        n_layers: number of layers in addition to the whole image.
        overlap_ratio: overlap of neighbours in the first layer as a share of the image's shorter side; half of it in
            the next layer.
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
    """True if a box, XYXY in the image, is near an edge of its crop that is not an edge of the image.

    The crop cuts off such an object; another crop shows all of it.
    """
    image_box = CropBox.whole(original_size)
    near_crop = np.abs(box - np.array(crop_box)) <= distance
    near_image = np.abs(box - np.array(image_box)) <= distance
    return bool((near_crop & ~near_image).any())


def _spans(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Equal spans along one side. The last may be shorter, and spans that would start outside are omitted."""
    span = math.ceil((overlap * (count - 1) + length) / count)
    starts = [(span - overlap) * index for index in range(count)]
    return [(start, min(start + span, length)) for start in starts if start < length]
