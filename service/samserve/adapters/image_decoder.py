"""Image files to the encoder's input, by Pillow.

What becomes of files that are not plain 8-bit RGB:

- EXIF orientation is applied, so that coordinates are those a person sees;
- alpha and transparent palette entries are laid over white;
- grey and palette images become RGB; CMYK is converted without colour management;
- 16-bit grey keeps its 8 high bits, as 16-bit RGB does in Pillow; 32-bit and float images are refused;
- animations and multi-page files give their first frame.
"""

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.ports import DecodedImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_SIDE_PIXELS = 65_535
MAX_JPEG_SCANS = 100
"""Progressive files have some ten. Each scan passes over all pixels, so that a small file of many takes minutes."""

_START_OF_SCAN = b"\xff\xda"
_FIELD = "image.data"

_TRANSPOSED = {5, 6, 7, 8}
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's own limit warns or raises depending on the size; ours is checked on every open, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class PillowImageDecoder:
    """Implements `ImageDecoder`.

    Args:
        max_pixels: largest width times height that is decoded.
        workers: how many images are decoded at a time; each can take some eight bytes a pixel.
    """

    def __init__(self, max_pixels: int, workers: int) -> None:
        self._max_pixels = max_pixels
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="image-decode")

    def probe(self, data: bytes) -> Size:
        """See `ImageDecoder.probe`."""
        return self._open(data)[1]

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        """See `ImageDecoder.decode`. Cancelled while it waits for a worker, it never runs."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._decode, data, image_size, crop_box)

    def close(self) -> None:
        """Stop the workers."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _decode(self, data: bytes, image_size: int, crop_box: CropBox | None) -> DecodedImage:
        started = time.perf_counter()
        image, original_size, orientation = self._open(data)
        frame = ImageFrame(original_size if crop_box is None else crop_box.size, image_size)
        try:
            image.load()
            rgb = _to_rgb(image)
        except (InvalidImage, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins let nearly anything out on corrupt data
            raise InvalidImage(_FIELD, f"is truncated or corrupt: {error}") from error
        if orientation in _ORIENTATIONS:
            rgb = rgb.transpose(_ORIENTATIONS[orientation])
        if crop_box is not None:
            rgb = rgb.crop(crop_box)
        height, width = frame.input_size
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.zeros((3, image_size, image_size), dtype=np.uint8)
        pixels[:, :height, :width] = np.asarray(resized).transpose(2, 0, 1)
        return DecodedImage(pixels, frame, time.perf_counter() - started)

    def _open(self, data: bytes) -> tuple[Image.Image, Size, int]:
        if not data:
            raise InvalidImage(_FIELD, "is empty: send an encoded image file")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise InvalidImage(_FIELD, f"is not an image in one of the formats {', '.join(FORMATS)}") from None
        except MemoryError:
            raise
        except Exception as error:
            raise InvalidImage(_FIELD, f"has a corrupt header: {error}") from error
        if image.format == "JPEG" and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
            raise InvalidImage(_FIELD, f"has more than {MAX_JPEG_SCANS} scans: save it anew")
        width, height = image.size
        if width * height > self._max_pixels:
            raise InvalidImage(
                _FIELD, f"declares {width} x {height} pixels, the limit is {self._max_pixels}: scale it down"
            )
        if not 0 < max(width, height) <= MAX_SIDE_PIXELS or min(width, height) < 1:
            raise InvalidImage(_FIELD, f"declares {width} x {height} pixels, a side must be 1 to {MAX_SIDE_PIXELS}")
        orientation = _orientation(image)
        return image, Size(width, height) if orientation in _TRANSPOSED else Size(height, width), orientation


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
        raise InvalidImage(_FIELD, "has 32-bit pixels: convert it to 8 or 16 bits a channel")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")
