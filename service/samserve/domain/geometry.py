"""Sizes and the two coordinate frames: the original image and the model's square input.

The model sees the image with its longest side resized to `image_size`, in the top left corner of a square. Both frames
have (x, y) coordinates in pixels with the origin at the top left corner. The transform is that of SAM's
`ResizeLongestSide`; the half pixel that SAM's prompt encoder adds on top is part of the model.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Size(NamedTuple):
    """Height and width in pixels, in this order."""

    height: int
    width: int


class CropBox(NamedTuple):
    """A part of an image, XYXY in whole pixels, right and bottom exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> Size:
        """Height and width of the part."""
        return Size(self.y1 - self.y0, self.x1 - self.x0)

    @classmethod
    def whole(cls, original_size: Size) -> "CropBox":
        """The whole of an image."""
        return cls(0, 0, original_size.width, original_size.height)


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """Placement of one image in the model's square input.

    Attributes:
        original_size: (H, W) of the image in pixels, after EXIF orientation.
        image_size: side of the model's square input in pixels.
    """

    original_size: Size
    image_size: int

    @property
    def input_size(self) -> Size:
        """Size of the resized image inside the square, rounded as in SAM; at least one pixel per side."""
        height, width = self.original_size
        scale = self.image_size / max(height, width)
        return Size(max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def to_input(self, coords: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Map coordinates `[..., 2]` (x, y) of the original image into the model's input frame."""
        input_size, original_size = self.input_size, self.original_size
        scale = np.array([input_size.width / original_size.width, input_size.height / original_size.height])
        scaled: npt.NDArray[np.float64] = coords * scale
        return scaled.astype(np.float32)


@dataclass(frozen=True, slots=True)
class InterpolationTaps:
    """One axis of a linear resampling: output `i` is the sum over `t` of `weights[i, t] * input[indices[i, t]]`.

    Attributes:
        indices: `[outputs, taps]`; the first tap is the lowest and the last the highest, both rise with the output.
        weights: `[outputs, taps]`, non-negative; each row sums to one, so no output exceeds its inputs.
    """

    indices: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]

    def reached_by(self, inputs: npt.NDArray[np.intp]) -> slice:
        """Range of outputs, first to last, that any of these inputs (in increasing order) contributes to."""
        if not len(inputs):
            return slice(0, 0)
        start = int(np.searchsorted(self.indices[:, -1], inputs[0], side="left"))
        stop = int(np.searchsorted(self.indices[:, 0], inputs[-1], side="right"))
        return slice(start, max(start, stop))

    def matrix(self, outputs: slice) -> tuple[npt.NDArray[np.float32], slice]:
        """The resampling of some outputs as a dense matrix, and the inputs of its columns."""
        indices, weights, inputs = self.indices[outputs], self.weights[outputs], self.inputs(outputs)
        dense = np.zeros((len(indices), inputs.stop - inputs.start), dtype=np.float32)
        rows = np.arange(len(indices))
        for tap in range(indices.shape[1]):
            # Several taps of one output may refer to the same input; their weights are added.
            dense[rows, indices[:, tap] - inputs.start] += weights[:, tap]
        return dense, inputs

    def inputs(self, outputs: slice) -> slice:
        """Range of inputs, first to last, that contribute to these outputs."""
        return slice(int(self.indices[outputs.start, 0]), int(self.indices[outputs.stop - 1, -1]) + 1)


def linear_taps(source: int, target: int) -> InterpolationTaps:
    """PyTorch's bilinear resampling (`align_corners=False`, no antialias) of one axis from `source` to `target`."""
    position = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(position.astype(np.intp), source - 1)
    high = np.minimum(low + 1, source - 1)
    fraction = position - low
    return InterpolationTaps(np.stack([low, high], axis=1), np.stack([1 - fraction, fraction], axis=1))


@lru_cache(maxsize=8)
def mask_taps(low_res_size: int, image_size: int, input_length: int, original_length: int) -> InterpolationTaps:
    """SAM's two resamplings of one mask axis combined: low resolution to square input, crop, to original size."""
    to_input = linear_taps(low_res_size, image_size)
    to_original = linear_taps(input_length, original_length)
    taps = to_original.indices
    indices = to_input.indices[taps].reshape(original_length, 4)
    weights = (to_original.weights[:, :, None] * to_input.weights[taps]).reshape(original_length, 4)
    for shared in (indices, weights):
        shared.setflags(write=False)
    return InterpolationTaps(indices, weights)
