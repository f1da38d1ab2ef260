"""Decoding of image files to the encoder's input, with Pillow.

`pixels` describes the conversion of pixels that are not plain 8-bit RGB. Of animations and multi-page files, the first
frame is used.
"""

import asyncio
import io
import time

import numpy as np
from PIL import Image, UnidentifiedImageError

from samserve.adapters.images.pixels import UnservedPixels, upright_rgb, upright_size
from samserve.domain.camera_motion import Thumbnail
from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.usecases.load.thread_pools import compute_threads
from samserve.usecases.ports import DecodedImage
from samserve.usecases.timings import Stage, StageTimings

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_SIDE_PIXELS = 65_535
THUMBNAIL_SIDE = 320
MAX_JPEG_SCANS = 100
"""Progressive files have about ten scans. Each scan passes over all pixels, so a small file with many scans takes
minutes."""

MAX_HEADER_READS = 4096
"""Limit of the segments, chunks or blocks before the pixels, which Pillow parses in Python with about three reads each.
The largest profiles and metadata that JPEG can split have fewer than 2,000."""

BYTES_PER_READ = 256
"""In addition to the header's reads, one read per this many bytes of pixel data: PNG's chunks have kilobytes."""

MAX_EXIF_RECORDS = 64
"""A file has one image, plus one for each embedded picture. Pillow joins those of a JPEG one by one, copying all
before."""

_EXIF = b"Exif\0\0"
_START_OF_SCAN = b"\xff\xda"
_FIELD = "data"

# Pillow's own limit warns or raises depending on the size. This adapter checks its own limit before decoding any pixel.
Image.MAX_IMAGE_PIXELS = None


class _TooManyParts(Exception):
    """The file consists of too many tiny parts."""

    def __init__(self) -> None:
        super().__init__("too many tiny segments, chunks or blocks; re-encode the image")


class _BoundedFile(io.BytesIO):
    """A file with a limit on the number of reads: a million empty segments would keep Pillow busy for a second.

    The limit is on the work itself, so it applies to all formats.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._reads_left = MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise _TooManyParts
        return super().read(size)

    def turn_to_pixels(self) -> None:
        """Called after the header has been parsed."""
        self._reads_left = MAX_HEADER_READS + self._size // BYTES_PER_READ


_TIFF_COMPRESSION = 259
# On corrupt fax data, libtiff writes a line per row to standard error, where the log is.
_TIFF_FAX = (2, 3, 4)


class PillowImageDecoder:
    """Implements `ImageDecoder` and `ThumbnailReader`.

    Args:
        max_pixels: largest width times height that is decoded.
        workers: how many images are decoded at a time; each can take some eight bytes a pixel beside the file, a
            progressive JPEG twelve and a WebP sixteen.
    """

    def __init__(self, max_pixels: int, workers: int) -> None:
        self._max_pixels = max_pixels
        self._executor = compute_threads(workers, "image-decode")

    async def probe(self, data: bytes) -> Size:
        """Read (H, W) after EXIF orientation from the header. Raises InvalidImage."""
        return (await asyncio.get_running_loop().run_in_executor(self._executor, self._open, data))[1]

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        """Decode an image to the encoder's input. If cancelled while it waits for a worker, it does not run."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._decode, data, image_size, crop_box)

    async def thumbnail(self, data: bytes) -> Thumbnail:
        """Decode a grey thumbnail with the longest side `THUMBNAIL_SIDE`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._thumbnail, data)

    def close(self) -> None:
        """Stop the workers."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        started = time.perf_counter()
        image, original_size = self._open(data)
        frame = ImageFrame(original_size if crop_box is None else crop_box.size, image_size)
        rgb = _upright(image)
        if crop_box is not None:
            rgb = rgb.crop(crop_box)
        height, width = frame.input_size
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.zeros((3, image_size, image_size), dtype=np.uint8)
        pixels[:, :height, :width] = np.asarray(resized).transpose(2, 0, 1)
        return DecodedImage(pixels, frame, StageTimings({Stage.IMAGE_DECODE: time.perf_counter() - started}))

    def _thumbnail(self, data: bytes) -> Thumbnail:
        image, original_size = self._open(data)
        # Lets Pillow decode JPEG files at an eighth, a quarter or half of their size; no effect on other formats.
        image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        gray = _upright(image).convert("L")
        scale = min(1.0, THUMBNAIL_SIDE / max(original_size))
        height, width = (max(1, round(side * scale)) for side in original_size)
        return Thumbnail(np.asarray(gray.resize((width, height), Image.Resampling.BOX)), original_size)

    def _open(self, data: bytes) -> tuple[Image.Image, Size]:
        if not data:
            raise InvalidImage(_FIELD, "empty; send an encoded image file")
        if data.count(_EXIF) > MAX_EXIF_RECORDS:
            raise InvalidImage(_FIELD, f"more than {MAX_EXIF_RECORDS} EXIF records; re-encode the image")
        file = _BoundedFile(data)
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise InvalidImage(_FIELD, f"unsupported image format; expected one of {', '.join(FORMATS)}") from None
        except MemoryError:
            raise
        except _TooManyParts as error:
            raise InvalidImage(_FIELD, str(error)) from None
        except Exception as error:
            raise InvalidImage(_FIELD, f"corrupt header ({error}); re-encode the image") from error
        if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_TIFF_COMPRESSION) in _TIFF_FAX:
            raise InvalidImage(_FIELD, "fax-compressed TIFF is not supported; use another compression or PNG")
        file.turn_to_pixels()
        if image.format == "JPEG" and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
            raise InvalidImage(_FIELD, f"more than {MAX_JPEG_SCANS} JPEG scans; re-encode the image")
        width, height = image.size
        if width * height > self._max_pixels:
            raise InvalidImage(
                _FIELD, f"{width} x {height} pixels exceed the limit of {self._max_pixels}; scale the image down"
            )
        if not 0 < max(width, height) <= MAX_SIDE_PIXELS or min(width, height) < 1:
            raise InvalidImage(_FIELD, f"{width} x {height} pixels; each side must be between 1 and {MAX_SIDE_PIXELS}")
        return image, Size(*upright_size(image))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return upright_rgb(image)
    except MemoryError:
        raise
    except (UnservedPixels, _TooManyParts) as error:
        raise InvalidImage(_FIELD, str(error)) from None
    except Exception as error:  # Pillow's plugins raise many kinds of exceptions on corrupt data.
        raise InvalidImage(_FIELD, f"truncated or corrupt image ({error}); send the complete file") from error
