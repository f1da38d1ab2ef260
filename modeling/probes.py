"""The images and prompts of the parity gate."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modeling.prompts import FloatArray, Prompt

# (height, width) of the valid region as fractions of the frame: square, landscape, portrait, a narrow strip.
REGIONS = ((1.0, 1.0), (0.66, 1.0), (1.0, 0.5), (0.25, 1.0))
MASK_LOGIT = 8.0
SEED = 20230405


class ProbeImage(NamedTuple):
    """An image in the model's input frame.

    Attributes:
        image: uint8 `[3, S, S]`, RGB planes; noise outside the valid region, which no result may depend on.
        input_size: (height, width) of the valid region, in pixels.
    """

    image: npt.NDArray[np.uint8]
    input_size: tuple[int, int]


def probe_images(count: int, side: int) -> list[ProbeImage]:
    """Create images of different contents and shapes: random discs and rectangles on a gradient, with noise."""
    return [_probe_image(index, side) for index in range(count)]


def _probe_image(index: int, side: int) -> ProbeImage:
    random = np.random.default_rng(SEED + index)
    y, x = np.mgrid[0:side, 0:side] / side
    colours = random.uniform(0, 255, (2, 3, 1, 1))
    picture = colours[0] + (colours[1] - colours[0]) * (x if index % 2 else y)
    for _ in range(8):
        centre_y, centre_x, radius = random.uniform(0.0, 1.0), random.uniform(0.0, 1.0), random.uniform(0.05, 0.25)
        distance_y, distance_x = np.abs(y - centre_y), np.abs(x - centre_x)
        round_shape = np.hypot(distance_y, distance_x) < radius
        straight_shape = (distance_y < radius) & (distance_x < radius * 0.7)
        shape = round_shape if random.random() < 0.5 else straight_shape
        picture = np.where(shape, random.uniform(0, 255, (3, 1, 1)), picture)
    picture += random.normal(0, 8, picture.shape)

    height, width = (round(part * side) for part in REGIONS[index % len(REGIONS)])
    image = random.integers(0, 256, (3, side, side), dtype=np.uint8)
    image[:, :height, :width] = np.clip(picture, 0, 255).astype(np.uint8)[:, :height, :width]
    return ProbeImage(image, (height, width))


def probe_prompts(input_size: tuple[int, int], low_res_size: int) -> list[Prompt]:
    """Create one prompt of every kind, of different lengths, inside the valid region."""
    height, width = input_size

    def at(x: float, y: float) -> tuple[float, float]:
        return round(x * width, 2), round(y * height, 2)

    box = (*at(0.2, 0.25), *at(0.7, 0.8))
    mask = _blob(low_res_size)
    return [
        Prompt(points=(at(0.5, 0.5),), labels=(1,)),
        Prompt(points=(at(0.25, 0.3), at(0.6, 0.7), at(0.9, 0.1)), labels=(1, 1, 0)),
        Prompt(box=box),
        Prompt(points=(at(0.45, 0.5), at(0.25, 0.75)), labels=(1, 0), box=box),
        Prompt(points=(at(0.4, 0.4),), labels=(1,), mask=mask),
        Prompt(mask=mask),
    ]


def _blob(side: int) -> FloatArray:
    """Create the logits of an ellipse, fading from +MASK_LOGIT inside to −MASK_LOGIT outside."""
    y, x = np.mgrid[0:side, 0:side] / side
    distance = np.hypot((x - 0.4) / 0.3, (y - 0.45) / 0.2)
    logits: FloatArray = np.clip(MASK_LOGIT * 2 * (1 - distance), -MASK_LOGIT, MASK_LOGIT).astype(np.float32)
    return logits
