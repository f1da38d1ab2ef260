"""Images as given by the caller, and as sent to the server."""

import io
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.client.channel import MAX_MESSAGE_BYTES
from samserve.client.errors import InvalidRequest
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb

ImageLike = str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | ImageId
"""A path, the bytes of an image file, RGB pixels uint8 `[H, W, 3]`, or the id of an image that the server knows."""

PROBE_BYTES = 256 * 1024
"""For files of at least this size, the id is sent before the file.

If the server knows the image, this saves the upload; if not, it costs a round trip. Both cost the same at the link's
bandwidth times its delay, and that product is about this size on common links (1 Gbit/s at 2 ms, 100 Mbit/s at 20 ms).
Smaller files are sent at once.
"""

# Upper bound for the rest of a request: 512 prompts of 64 points are smaller.
_PROMPT_BYTES = 1024 * 1024


class KnownImages:
    """Images that the server has recently answered for, so that their ids are worth sending first. Thread-safe."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[ImageId, None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, image_id: ImageId) -> bool:
        with self._lock:
            return image_id in self._ids

    def add(self, image_id: ImageId) -> None:
        """Add an image. If there are too many, the least recently used one is removed."""
        with self._lock:
            self._ids[image_id] = None
            self._ids.move_to_end(image_id)
            if len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def discard(self, image_id: ImageId) -> None:
        """Remove an image."""
        with self._lock:
            self._ids.pop(image_id, None)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image ready to be sent.

    Attributes:
        data: the encoded file; None where the caller has only the id.
    """

    image_id: ImageId
    data: bytes | None

    @classmethod
    def of(cls, image: ImageLike) -> "ImageSource":
        """Read the file or encode the pixels, and hash the bytes to be sent.

        Raises:
            InvalidRequest: an array that is not uint8 `[H, W, 3]`, or a file too large to be sent.
            OSError: the file cannot be read.
        """
        if isinstance(image, ImageId):
            return cls(image, None)
        data = _read(image)
        if len(data) > MAX_MESSAGE_BYTES - _PROMPT_BYTES:
            limit = MAX_MESSAGE_BYTES - _PROMPT_BYTES
            raise InvalidRequest("image", f"has {len(data)} bytes, the limit is {limit}; compress or scale the image")
        return cls(ImageId.of(data), data)

    @property
    def message(self) -> pb.Image:
        """The image as sent if there is no second attempt: the file, or the id if there is no file."""
        return pb.Image(image_id=self.image_id) if self.data is None else pb.Image(data=self.data)

    def forms(self, known: KnownImages) -> list[pb.Image]:
        """The forms to send, in order. The server may answer NOT_FOUND to any but the last."""
        if self.data is None or (len(self.data) < PROBE_BYTES and self.image_id not in known):
            return [self.message]
        return [pb.Image(image_id=self.image_id), self.message]


def _read(image: ImageLike) -> bytes:
    if isinstance(image, np.ndarray):
        return _png(image)
    if isinstance(image, bytes):
        return image
    # open() would accept a number as a file descriptor, and close it.
    with open(os.fspath(image), "rb") as file:
        return file.read()


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode pixels as PNG. Equal pixels give equal bytes and thus the same id; speed matters more than size."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InvalidRequest("image", f"must be RGB pixels as uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    # Importing Pillow takes a tenth of the client's import time, and few calls need it.
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
