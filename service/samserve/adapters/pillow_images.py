"""Pixels of image files as a person sees them, whatever the file holds.

- EXIF orientation is applied, so that coordinates are those a person sees;
- alpha and transparent palette entries are laid over white;
- grey and palette images become RGB; CMYK is converted without colour management;
- 16-bit grey keeps its 8 high bits, as 16-bit RGB does in Pillow; 32-bit and float images are refused.
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


class UnservedPixels(ValueError):
    """The image has pixels that are not served."""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width as a person sees them, from the header alone."""
    width, height = image.size
    return (width, height) if _orientation(image) in _TRANSPOSED else (height, width)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, as a person sees it.

    Raises:
        UnservedPixels: it has 32 bits a channel.
        Exception: Pillow's plugins let nearly anything out on corrupt data.
    """
    orientation = _orientation(image)
    image.load()
    rgb = _to_rgb(image)
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF files itself; and asking a PNG for EXIF that it does not have would decode it.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that cannot be read says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        high_bytes = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high_bytes).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnservedPixels("has 32-bit pixels: convert it to 8 or 16 bits a channel")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")
