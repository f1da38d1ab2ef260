"""Orientation of an image, 1 to 8 as EXIF numbers it, from whatever block of the file states it.

EXIF counts first, then XMP. A value that is not between 1 and 8 counts as absent, and so does a block that cannot be
read: it says nothing about the pixels.
"""

import re
import struct

UPRIGHT = 1
_TAG = 0x0112
_FIELDS = {1: "B", 3: "H", 4: "I"}
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")


def from_exif(block: bytes) -> int | None:
    """Return the orientation that the first directory of an EXIF block states. The prefix `Exif\\0\\0` is optional."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return None
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for position in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, position)
            if tag == _TAG:
                (value,) = struct.unpack_from(order + _FIELDS[kind], block, position + 8)
                return int(value) if 1 <= value <= 8 else None
    except (struct.error, KeyError):
        pass
    return None


def from_xmp(packet: bytes) -> int | None:
    """Return the `tiff:Orientation` that an XMP packet states."""
    match = _XMP_ORIENTATION.search(packet)
    return int(match[1]) if match else None
