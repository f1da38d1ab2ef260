"""Image files to the encoder's input, by Pillow.

`files` judges the header, and `pixels` says what becomes of pixels that are not plain 8-bit RGB.
"""

import asyncio
import time

import numpy as np
from PIL import Image

from samserve.adapters.images.files import OpenedImage, UnservedImage, open_image
from samserve.adapters.images.pixels import upright_rgb
from samserve.adapters.images.reduced_file import TooMuchWork
from samserve.domain.camera_motion import Thumbnail
from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.usecases.load.thread_pools import compute_threads
from samserve.usecases.ports import DecodedImage
from samserve.usecases.timings import Stage, StageTimings

THUMBNAIL_SIDE = 320
_FIELD = "data"


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
        """Read (H, W) after orientation from the header. Raises InvalidImage."""
        opened = await asyncio.get_running_loop().run_in_executor(self._executor, self._open, data)
        return Size(*opened.size)

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
        opened = self._open(data)
        frame = ImageFrame(Size(*opened.size) if crop_box is None else crop_box.size, image_size)
        rgb, notes = _upright(opened)
        if crop_box is not None:
            rgb = rgb.crop(crop_box)
        height, width = frame.input_size
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.zeros((3, image_size, image_size), dtype=np.uint8)
        pixels[:, :height, :width] = np.asarray(resized).transpose(2, 0, 1)
        return DecodedImage(pixels, frame, StageTimings({Stage.IMAGE_DECODE: time.perf_counter() - started}), notes)

    def _thumbnail(self, data: bytes) -> Thumbnail:
        opened = self._open(data)
        original_size = Size(*opened.size)
        # JPEG files are decoded at an eighth, a quarter or half of their size; for others this does nothing.
        opened.image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        gray = _upright(opened)[0].convert("L")
        scale = min(1.0, THUMBNAIL_SIDE / max(original_size))
        height, width = (max(1, round(side * scale)) for side in original_size)
        return Thumbnail(np.asarray(gray.resize((width, height), Image.Resampling.BOX)), original_size)

    def _open(self, data: bytes) -> OpenedImage:
        try:
            return open_image(data, self._max_pixels)
        except UnservedImage as error:
            raise InvalidImage(_FIELD, str(error)) from error.__cause__


def _upright(opened: OpenedImage) -> tuple[Image.Image, tuple[str, ...]]:
    try:
        return upright_rgb(opened)
    except MemoryError:
        raise
    except (UnservedImage, TooMuchWork) as error:
        raise InvalidImage(_FIELD, str(error)) from None
    except Exception as error:  # Pillow's plugins let nearly anything out on corrupt data
        raise InvalidImage(_FIELD, f"truncated or corrupt image ({error}); send the complete file") from error
