"""Image files, opened and judged before any pixel is decoded.

Animations and multi-page files give their first frame.
"""

import ctypes
import io
import struct
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, _imaging

from samserve.adapters.images import orientation
from samserve.adapters.images.jpeg import reduce_jpeg
from samserve.adapters.images.png import reduce_png
from samserve.adapters.images.reduced_file import ReducedFile, TooMuchWork

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_SIDE_PIXELS = 65_535

MAX_HEADER_READS = 16_384
"""Most reads of the blocks before the pixels, which Pillow walks through in Python. GIF splits a profile of a megabyte,
or metadata of some hundred kilobytes, into 8,000 reads."""

BYTES_PER_READ = 256
"""Beside as many as for the header, the pixels may take a read for so many bytes."""

# Pillow's own limit warns or raises depending on the size; ours is checked on every open, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# All TIFF files by libtiff: Pillow's own reader takes memory for each strip, and reads planes of 16 bits as 8.
TiffImagePlugin.READ_LIBTIFF = True

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"RIFF", "WEBP"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II", "TIFF"),
    (b"MM", "TIFF"),
)
_TIFF_COMPRESSION, _TIFF_ORIENTATION, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 259, 274, 322, 323
_TIFF_FAX = (2, 3, 4)
_TURNED = range(5, 9)


class UnservedImage(ValueError):
    """The file is not an image that is served; the text says why and what to do."""


class BoundedFile(io.BytesIO):
    """A file that may be read so many times: a million empty blocks would keep Pillow busy for a second."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._reads_left = MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As `io.BytesIO.read`; raises `TooMuchWork`."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise TooMuchWork
        return super().read(size)

    def turn_to_pixels(self) -> None:
        """The header has been read."""
        self._reads_left = MAX_HEADER_READS + self._size // BYTES_PER_READ


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image whose header has been read.

    Attributes:
        image: not loaded yet.
        file: what it is read from.
        orientation: as EXIF numbers it, to be applied to the loaded image.
        size: height and width as a person sees them.
    """

    image: Image.Image
    file: ReducedFile
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.image.size
        return (width, height) if self.orientation in _TURNED else (height, width)

    def again(self) -> Image.Image:
        """The image opened once more, to be decoded in another way."""
        return Image.open(io.BytesIO(self.file.data), formats=FORMATS)


def open_image(data: bytes, max_pixels: int | None = None) -> OpenedImage:
    """Read the header of a file.

    Args:
        max_pixels: largest width times height.

    Raises:
        UnservedImage: it is empty, of an unknown format, corrupt, too large, or asks for too much work.
    """
    if not data:
        raise UnservedImage("empty; send an encoded image file")
    kind = next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
    try:
        if kind == "WEBP" and (size := _webp_size(data)) is not None:
            # The decoder takes the memory of two canvases when it is made.
            _check_size(*size, max_pixels)
        reduced = {"JPEG": reduce_jpeg, "PNG": reduce_png}.get(kind or "", ReducedFile)(data)
        file = BoundedFile(reduced.data)
        image = Image.open(file, formats=FORMATS)
        _check_tiff(image, max_pixels)
    except UnidentifiedImageError:
        if kind is None or len(data) < 32:
            raise UnservedImage(f"unsupported image format; expected one of {', '.join(FORMATS)}") from None
        raise UnservedImage(
            f"corrupt {kind}, or a kind of {kind} that is not supported; re-encode the image with 8 bits a channel"
        ) from None
    except (MemoryError, UnservedImage):
        raise
    except TooMuchWork as error:
        raise UnservedImage(str(error)) from None
    except Exception as error:  # Pillow's plugins let nearly anything out on corrupt data
        raise UnservedImage(f"corrupt header ({error}); re-encode the image") from error
    file.turn_to_pixels()
    _check_size(*image.size, max_pixels)
    return OpenedImage(image, reduced, _orientation(image, reduced))


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise UnservedImage(f"{width} x {height} pixels exceed the limit of {max_pixels}; scale the image down")
    if not 0 < max(width, height) <= MAX_SIDE_PIXELS or min(width, height) < 1:
        raise UnservedImage(f"{width} x {height} pixels; each side must be between 1 and {MAX_SIDE_PIXELS}")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the canvas of an extended WebP file; the simple ones have less than their canvas to fill."""
    if data[12:16] != b"VP8X" or len(data) < 30:
        return None
    width, height = (struct.unpack("<I", data[start : start + 3] + b"\0")[0] + 1 for start in (24, 27))
    return width, height


def _check_tiff(image: Image.Image, max_pixels: int | None) -> None:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    tile = tags.get(_TIFF_TILE_WIDTH, 1), tags.get(_TIFF_TILE_LENGTH, 1)
    # A tile is decoded as a whole, however little of it lies inside the image.
    _check_size(*tile, max_pixels)
    if tags.get(_TIFF_COMPRESSION) in _TIFF_FAX and not _LIBTIFF_IS_SILENT:
        raise UnservedImage("fax-compressed TIFF is not supported; use another compression or PNG")


def _silence_libtiff() -> bool:
    """Keep libtiff from writing to where the log is: a fax of wrong bits gives a line for each row."""
    try:
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    except (AttributeError, OSError):
        return False
    return True


_LIBTIFF_IS_SILENT = _silence_libtiff()


def _orientation(image: Image.Image, reduced: ReducedFile) -> int:
    if image.format not in ("WEBP", "TIFF"):
        return reduced.orientation
    packet = image.info.pop("xmp", b"")
    xmp = orientation.from_xmp(packet) if isinstance(packet, bytes) else None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow applies a TIFF's own tag when it loads the pixels.
        stated = image.tag_v2.get(_TIFF_ORIENTATION) in range(1, 9)
        return orientation.UPRIGHT if stated else xmp or orientation.UPRIGHT
    return orientation.from_exif(image.info.get("exif", b"")) or xmp or orientation.UPRIGHT
