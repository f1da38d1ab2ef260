"""Images as the caller has them, and as they are sent."""

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
"""A file this large is asked for by its id before it is sent.

Where the server has the image, the question saves the upload; where it has not, it costs a round trip. Upload and round
trip cost the same at the link's bandwidth times its delay, and that product is about this size on common links
(1 Gbit/s at 2 ms, 100 Mbit/s at 20 ms). Smaller files are sent at once.
"""

# What a request holds beside the image: 512 prompts of 64 points are below it.
_PROMPT_BYTES = 1024 * 1024


class KnownImages:
    """The images that the server has answered for lately, so that their ids are worth sending first. Thread-safe."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[ImageId, None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, image_id: ImageId) -> bool:
        with self._lock:
            return image_id in self._ids

    def add(self, image_id: ImageId) -> None:
        """Remember an image, and forget the one that was used least lately where there are too many."""
        with self._lock:
            self._ids[image_id] = None
            self._ids.move_to_end(image_id)
            if len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def discard(self, image_id: ImageId) -> None:
        """Forget an image."""
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
        """Read the file or encode the pixels, and hash what is to be sent.

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
        """The image as it is sent where there is no second try: itself, or its id where that is all there is."""
        return pb.Image(image_id=self.image_id) if self.data is None else pb.Image(data=self.data)

    def forms(self, known: KnownImages) -> list[pb.Image]:
        """What to send, in this order: each but the last may turn out to be unknown to the server."""
        if self.data is None or (len(self.data) < PROBE_BYTES and self.image_id not in known):
            return [self.message]
        return [pb.Image(image_id=self.image_id), self.message]


def _read(image: ImageLike) -> bytes:
    if isinstance(image, np.ndarray):
        return _png(image)
    if isinstance(image, bytes):
        return image
    # open() would take a number for a file descriptor, and close it.
    with open(os.fspath(image), "rb") as file:
        return file.read()


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The same pixels make the same file, and with it the same id; speed counts more than size."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InvalidRequest("image", f"must be RGB pixels as uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    # Pillow adds a tenth to the time of importing the client, and few calls need it.
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
