"""PNG files reduced to what the decoder needs: header, palette, pixels, and transparency as samples."""

import struct
import zlib

from samserve.adapters.images import orientation
from samserve.adapters.images.reduced_file import ReducedFile, TooMuchWork

MAX_CHUNKS = 4096
BYTES_PER_CHUNK = 256
"""Beside `MAX_CHUNKS`, a file may have a chunk for so many bytes: those of pixels have kilobytes."""

MAX_METADATA_BYTES = 1 << 20
"""Limit on the bytes read of a compressed block that may state the orientation."""

_PALETTE_COLOR = 3
_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP = b"XML:com.adobe.xmp"


def reduce_png(data: bytes) -> ReducedFile:
    """Keep the chunks that describe the pixels, up to the end of the image.

    Raises:
        TooMuchWork: more chunks than any ordinary file of its size has.
    """
    view = memoryview(data)
    parts = [view[:8]]
    color_type = data[25] if len(data) > 25 else 0
    exif = xmp = transparent_samples = None
    position, count = 8, 0
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        start, position, count = position, position + 12 + length, count + 1
        if count > MAX_CHUNKS + start // BYTES_PER_CHUNK:
            raise TooMuchWork
        content = view[start + 8 : start + 8 + length]
        if kind in _KEPT or (kind == b"tRNS" and color_type == _PALETTE_COLOR):
            parts.append(view[start:position])
        elif kind == b"tRNS" and len(content) in (2, 6):
            transparent_samples = struct.unpack(f">{len(content) // 2}H", content)
        elif kind == b"eXIf" and exif is None:
            exif = orientation.from_exif(bytes(content))
        elif kind in (b"iTXt", b"tEXt", b"zTXt"):
            keyword, text = _text(kind, content)
            if keyword == _XMP and xmp is None:
                xmp = orientation.from_xmp(text)
            elif keyword in _RAW_PROFILES and exif is None:
                exif = orientation.from_exif(_raw_profile(text))
        if kind == b"IEND":
            break
    return ReducedFile(b"".join(parts), exif or xmp or orientation.UPRIGHT, transparent_samples)


def _text(kind: bytes, content: memoryview) -> tuple[bytes, bytes]:
    """Keyword and text of a chunk that may state the orientation; nothing of others."""
    keyword = bytes(content[:80]).partition(b"\0")[0]
    if keyword != _XMP and keyword not in _RAW_PROFILES:
        return b"", b""
    body = bytes(content[len(keyword) + 1 :])
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        body = body[1:]
    elif kind == b"iTXt":
        compressed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]
    if not compressed:
        return keyword, body
    try:
        return keyword, zlib.decompressobj().decompress(body, MAX_METADATA_BYTES)
    except zlib.error:
        return b"", b""


def _raw_profile(text: bytes) -> bytes:
    """ImageMagick's form of a binary block: a name, a length, and hexadecimal digits on lines."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""
