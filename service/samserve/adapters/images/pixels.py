"""Pixels of image files as a person sees them, whatever the file holds.

- the orientation is applied, so that coordinates are those a person sees;
- alpha, transparent palette entries and transparent colors are laid over white, and so is what a frame leaves open;
- grey and palette images become RGB; CMYK is converted without color management, CIELab by its definition;
- deeper samples are reduced to 8 bits: see `samples`.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageCms

from samserve.adapters.images.files import OpenedImage
from samserve.adapters.images.samples import bands, deep_rgb, rawmode

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BMP_RUN_LENGTHS = (1, 2)
_DEPTHS = {"1": 1, "L;2": 2, "L;4": 4}


def upright_rgb(opened: OpenedImage) -> tuple[Image.Image, tuple[str, ...]]:
    """The image in RGB, as a person sees it, and what to tell of how its samples were read. The one given is closed.

    Two images are in memory at a time, eight bytes a pixel, beside what Pillow's plugins keep.

    Raises:
        UnservedImage: its samples are of no range that is served.
        Exception: Pillow's plugins let nearly anything out on corrupt data.
    """
    image = opened.image
    rgb, notes = _rle_rgb(opened) or deep_rgb(opened) or (_shallow_rgb(opened), ())
    if rgb is not image:
        image.close()
    turn = _TURNS.get(opened.orientation)
    if turn is not None:
        turned = rgb.transpose(turn)
        rgb.close()
        rgb = turned
    return rgb, notes


def _rle_rgb(opened: OpenedImage) -> tuple[Image.Image, tuple[str, ...]] | None:
    """A run-length encoded BMP, which Pillow reads byte by byte in Python."""
    if opened.image.info.get("compression") not in _BMP_RUN_LENGTHS or opened.image.format != "BMP":
        return None
    import cv2  # the command reads photos where the client alone is installed, which does not bring it

    bgr = cv2.imdecode(np.frombuffer(opened.file.data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if bgr is None or bgr.shape[1::-1] != opened.image.size:
        raise OSError("runs do not fit the image")
    return Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])), ()


def _shallow_rgb(opened: OpenedImage) -> Image.Image:
    image, key = opened.image, opened.file.transparent_samples
    depth = _DEPTHS.get(rawmode(image), 8)
    covered = image.tile[0].extents if image.format == "GIF" and image.tile else None  # type: ignore[attr-defined]
    image.load()
    if key is not None:
        most = (1 << depth) - 1
        key = tuple((sample & most) * 255 // most for sample in key)
    if image.mode == "RGB" and key is None:
        return image
    rgb = Image.new("RGB", image.size, "white")
    for box in bands(image.size):
        rgb.paste(_band_to_rgb(image.crop(box), key), box)
    if covered is not None and covered != (0, 0, *image.size):
        whole = Image.new("RGB", image.size, "white")
        whole.paste(rgb.crop(covered), covered)
        return whole
    return rgb


def _band_to_rgb(band: Image.Image, key: tuple[int, ...] | None) -> Image.Image:
    if key is not None:
        pixels = np.asarray(band.convert("RGB")).copy()
        pixels[(pixels == np.array(key)).all(axis=-1)] = 255
        return Image.fromarray(pixels)
    if band.mode == "LAB":
        converted = ImageCms.applyTransform(band, _lab_to_srgb())
        assert converted is not None
        return converted
    if band.mode == "La":
        band = band.convert("LA")
    if band.has_transparency_data:
        over = band.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return band.convert("RGB")


@cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")
