"""Objects cut out for CLIP: sharp themselves, blurred around."""

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.masks import Mask
from samserve.domain.object_crops import crop_object

SIDE = 64


def noise_crop(size: Size, mask: Mask) -> npt.NDArray[np.uint8]:
    """An object of a photo at its own size; the rest of the square is red."""
    pixels = np.zeros((3, max(size), max(size)), np.uint8)
    pixels[0] = 255
    pixels[:, : size.height, : size.width] = np.random.default_rng(3).integers(0, 256, (1, *size), dtype=np.uint8)
    return crop_object(pixels, ImageFrame(size, max(size)), mask, SIDE)


def disc(size: Size, row: int, column: int, radius: int) -> Mask:
    rows, columns = np.mgrid[: size.height, : size.width]
    pixels = np.hypot(rows - row, columns - column) < radius
    return Mask(size, np.asfortranarray(pixels), 0, 0, 0.9, 0.9, np.zeros((0, 0), np.float32))


def test_a_crop_keeps_the_object_sharp_and_blurs_its_surroundings() -> None:
    size = Size(150, 200)
    crop = noise_crop(size, disc(size, 70, 90, 22))
    assert crop.shape == (3, SIDE, SIDE)
    assert crop.dtype == np.uint8
    grey = crop[0].astype(float)
    middle, corner = grey[24:40, 24:40], grey[:8, :8]
    assert middle.std() > 4 * corner.std()


def test_a_crop_at_the_edge_is_filled_beyond_the_photo() -> None:
    size = Size(60, 200)
    for row, column in ((0, 0), (59, 199), (0, 199), (59, 0)):
        crop = noise_crop(size, disc(size, row, column, 20))
        assert (crop[0] == crop[1]).all()


def test_object_of_one_pixel_and_one_as_large_as_the_photo_have_crops() -> None:
    size = Size(1, 300)
    whole = Mask(size, np.ones(size, np.bool_), 0, 0, 0.9, 0.9, np.zeros((0, 0), np.float32))
    pixel = Mask(size, np.ones((1, 1), np.bool_), 0, 299, 0.9, 0.9, np.zeros((0, 0), np.float32))
    for mask in (whole, pixel):
        assert noise_crop(size, mask).shape == (3, SIDE, SIDE)
