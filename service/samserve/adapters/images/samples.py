"""Samples of more than 8 bits, reduced to 8.

Cameras, scanners and microscopes store 10, 12 or 14 bits in 16-bit files, mostly without saying so. The largest sample
of an image tells: the range is the smallest of 8, 10, 12, 14 and 16 bits that holds it, and its 8 high bits are kept.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from samserve.adapters.images.files import OpenedImage, UnservedImage

BAND_PIXELS = 1 << 18
"""So many at a time become RGB: they are copied several times on the way."""

USED_BITS = (8, 10, 12, 14, 16)
_WHITE_IS_ZERO_TAG, _PLANAR_TAG = 262, 284
_SIXTEEN_BITS = re.compile(r"(RGB|RGBX|RGBA);16([BLN])")
# libtiff gives samples in the machine's order; Pillow expects these in the file's.
_NATIVE = {"F;32BF": "F;32F", "I;32BS": "I;32S", "I;16BS": "I;16S"}

Samples = npt.NDArray[Any]
ReadBand = Callable[[tuple[int, int, int, int]], Samples]


def used_bits(largest: float) -> int:
    """The smallest depth that holds this sample.

    Raises:
        UnservedImage: none does.
    """
    for bits in USED_BITS:
        if largest < 1 << bits:
            return bits
    raise UnservedImage(f"has samples up to {largest:g}; scale them to 0 to 65,535, or to 0 to 1 as floats")


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes, as Pillow has them, that cover an image of this width and height from top to bottom."""
    width, height = size
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def rawmode(image: Image.Image) -> str:
    """How the samples lie in the file, as Pillow names it."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def load_as(image: Image.Image, mode: str, raw: str) -> Image.Image:
    """Load the pixels, read as if they lay in the file in this other way."""
    (tile,) = image.tile  # type: ignore[attr-defined]
    args = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
    image.tile = [tile._replace(args=args)]  # type: ignore[attr-defined]
    image._mode = mode
    image.load()
    return image


def deep_rgb(opened: OpenedImage) -> tuple[Image.Image, tuple[str, ...]] | None:
    """The image in RGB with 8 bits a channel, and what to tell of it; None if its 8 high bits, as loaded, are all.

    Raises:
        UnservedImage: its samples are negative, not numbers, or too large.
    """
    image, raw = opened.image, rawmode(opened.image)
    if raw in _NATIVE and image.tile[0].codec_name == "libtiff":  # type: ignore[attr-defined]
        load_as(image, image.mode, _NATIVE[raw])
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(opened, known_bits=12 if raw == "I;12" else None)
    if raw == "LA;16B":
        return _deep_grey_alpha(opened)
    match = _SIXTEEN_BITS.fullmatch(raw)
    return None if match is None else _deep_color(opened, match[1], match[2])


def _deep_grey(opened: OpenedImage, known_bits: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    image = opened.image
    image.load()
    inverted = image.format == "TIFF" and image.tag_v2.get(_WHITE_IS_ZERO_TAG) == 0  # type: ignore[attr-defined]

    def read(box: tuple[int, int, int, int]) -> Samples:
        return np.asarray(image.crop(box))[..., None]

    largest = 0.0
    for box in bands(image.size):
        samples = read(box)
        if not (samples.min() >= 0 and np.isfinite(samples.max())):
            raise UnservedImage("has negative samples, or samples that are not numbers; scale them to 0 to 65,535")
        largest = max(largest, float(samples.max()))
    unit = image.mode == "F" and largest <= 1
    bits = 0 if unit else known_bits or used_bits(largest)
    rgb = _reduce(opened, read, bits, inverted=inverted)
    return rgb, () if known_bits or (bits == 16 and image.mode != "F") else _notes(bits)


def _deep_grey_alpha(opened: OpenedImage) -> tuple[Image.Image, tuple[str, ...]]:
    # Four bytes a pixel, read as they are.
    image = load_as(opened.image, "RGBA", "RGBA")
    high = _largest(image)
    bits = _bits_of_high_byte(high[0])

    def read(box: tuple[int, int, int, int]) -> Samples:
        return np.asarray(image.crop(box)).view(">u2")

    return _reduce(opened, read, bits, _bits_of_high_byte(high[2])), () if bits == 16 else _notes(bits)


def _deep_color(opened: OpenedImage, raw: str, order: str) -> tuple[Image.Image, tuple[str, ...]] | None:
    image = opened.image
    image.load()
    # Pillow keeps the high bytes. Where they use 16 bits, they are all that is needed.
    high = _largest(image)
    bits = _bits_of_high_byte(max(high[:3]))
    if bits == 16 and opened.file.transparent_samples is None:
        return None
    if image.format == "TIFF" and image.tag_v2.get(_PLANAR_TAG) == 2:  # type: ignore[attr-defined]
        raise UnservedImage("has planes of 16 bits that use 14 bits or fewer; store the samples of a pixel together")
    # Read in the other byte order, the low bytes are what Pillow takes for the high ones.
    low = load_as(opened.again(), image.mode, f"{raw};16{'B' if order != 'B' else 'L'}")

    def read(box: tuple[int, int, int, int]) -> Samples:
        samples: npt.NDArray[np.uint16] = np.asarray(image.crop(box)).astype(np.uint16)
        samples <<= 8
        samples |= np.asarray(low.crop(box))
        return samples

    alpha_bits = _bits_of_high_byte(high[3]) if image.mode == "RGBA" else None
    return _reduce(opened, read, bits, alpha_bits), () if bits == 16 else _notes(bits)


def _largest(image: Image.Image) -> list[int]:
    """Largest byte of each band."""
    return [int(high) for _, high in image.getextrema()]  # type: ignore[misc]


def _bits_of_high_byte(largest: int) -> int:
    return used_bits(largest << 8 | 0xFF)


def _reduce(
    opened: OpenedImage, read: ReadBand, bits: int, alpha_bits: int | None = None, *, inverted: bool = False
) -> Image.Image:
    """The image in RGB.

    Args:
        bits: of the samples that `read` gives; 0 for floats up to 1.
        alpha_bits: of the last channel, where that is alpha.
    """
    key = opened.file.transparent_samples
    # In place where it can be: a band is read before it is written.
    rgb = opened.image if opened.image.mode == "RGB" else Image.new("RGB", opened.image.size)
    for box in bands(opened.image.size):
        samples = read(box)
        colors = samples if alpha_bits is None else samples[..., :-1]
        if colors.dtype.kind == "f":
            values = (colors * (255.0 if bits == 0 else 2.0 ** (8 - bits))).astype(np.uint8)
        else:
            values = (colors.astype(np.uint16, copy=False) >> (bits - 8)).astype(np.uint8)
        if inverted:
            values = 255 - values
        if alpha_bits is not None:
            opacity = (samples[..., -1:] >> (alpha_bits - 8)).astype(np.float32) / 255
            values = np.round(values * opacity + 255 * (1 - opacity)).astype(np.uint8)
        if key is not None:
            values[(samples == np.array(key)).all(axis=-1)] = 255
        rgb.paste(Image.fromarray(np.broadcast_to(values, (*values.shape[:2], 3))), box)
    return rgb


def _notes(bits: int) -> tuple[str, ...]:
    if bits == 0:
        return ("float samples were read as 0 to 1",)
    most = (1 << bits) - 1
    return (f"samples use {bits} bits and were read as 0 to {most}; if that is wrong, scale them to 0 to 65,535",)
