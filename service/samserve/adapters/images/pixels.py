"""Conversion of the pixels of any image file to upright RGB.

- EXIF orientation is applied, so that coordinates refer to the upright image;
- alpha and transparent palette entries are composed over white;
- grey and palette images become RGB; CMYK is converted without colour management;
- 16-bit grey keeps its 8 high bits, as 16-bit RGB does in Pillow; 32-bit and float images are rejected.
"""

import numpy as np
from PIL import ExifTags, Image

_TRANSPOSED = {5, 6, 7, 8}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_BAND_PIXELS = 1 << 18
"""Rows converted to RGB at a time, because conversion makes several copies."""


class UnservedPixels(ValueError):
    """The image has a pixel format that is not supported."""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width after EXIF orientation, from the header alone."""
    width, height = image.size
    return (width, height) if _orientation(image) in _TRANSPOSED else (height, width)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert the image to RGB with EXIF orientation applied. Returns a new image after closing the given one, or the
    given image.

    Two images are in memory at a time, eight bytes per pixel, in addition to the memory of Pillow's plugins.

    Raises:
        UnservedPixels: it has 32 bits per channel.
        Exception: Pillow's plugins raise many kinds of exceptions on corrupt data.
    """
    orientation = _orientation(image)
    image.load()
    rgb = image if image.mode == "RGB" else _in_place_of(image, _to_rgb(image))
    return _in_place_of(rgb, rgb.transpose(_TURNS[orientation])) if orientation in _TURNS else rgb


def _in_place_of(old: Image.Image, new: Image.Image) -> Image.Image:
    # Callers still refer to the old image, which would keep its pixels in memory.
    old.close()
    return new


def _orientation(image: Image.Image) -> int:
    # Pillow applies the orientation of TIFF files itself. Reading the EXIF of a PNG without any would decode the image.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Unreadable EXIF does not make the pixels invalid.
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise UnservedPixels("has 32-bit pixels; convert it to 8 or 16 bits per channel")
    rgb = Image.new("RGB", image.size)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        rgb.paste(_band_to_rgb(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return rgb


def _band_to_rgb(band: Image.Image) -> Image.Image:
    if band.mode.startswith("I;16"):
        high_bytes = (np.asarray(band) >> 8).astype(np.uint8)
        return Image.fromarray(high_bytes).convert("RGB")
    if band.has_transparency_data:
        over = band.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return band.convert("RGB")
