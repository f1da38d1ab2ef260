"""JPEG files reduced to what the decoder needs.

Metadata, and everything behind the end of the image (the video of a motion photo, further pictures), is left out
before Pillow sees the file. So the bounds count what is decoded, whatever else the file holds.
"""

import re

from samserve.adapters.images import orientation
from samserve.adapters.images.reduced_file import ReducedFile, TooMuchWork

MAX_SCANS = 100
"""Progressive files have some ten. Each scan passes over all pixels, so that a small file of many takes minutes."""

MAX_SEGMENTS = 4096
"""The largest profiles and metadata that JPEG can split take fewer than 2,000, and a scan some three."""

# Behind a 0xFF: not a stuffed zero, not a fill byte, and not the markers that stand alone (TEM and RST0 to RST7).
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_END, _SCAN, _APP0, _APP1, _APP14, _COMMENT = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE
_FILL_RUN = b"\xff" * 1024
"""Pillow hands a run of fill bytes to libjpeg again and again until it ends."""

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def reduce_jpeg(data: bytes) -> ReducedFile:
    """Keep the segments up to the end of the image that describe its pixels.

    Markers are followed as libjpeg follows them, so that what is counted is what it decodes.

    Raises:
        TooMuchWork: more than `MAX_SCANS` scans, or `MAX_SEGMENTS` segments.
    """
    view = memoryview(data)
    parts: list[memoryview] = []
    exif = xmp = None
    kept = position = 2
    scans = segments = 0
    end = len(data)
    while match := _MARKER.search(data, position):
        code, position = data[match.end() - 1], match.end()
        if code == _END:
            end = position
            break
        segments += 1
        if segments > MAX_SEGMENTS:
            raise TooMuchWork
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
        if code == _SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise TooMuchWork(f"more than {MAX_SCANS} JPEG scans")
        elif (_APP0 < code <= 0xEF and code != _APP14) or code == _COMMENT:
            parts.append(view[kept : match.start()])
            kept = position
            content = data[match.end() + 2 : position] if code == _APP1 and not scans else b""
            if exif is None and content.startswith(_EXIF):
                exif = orientation.from_exif(content)
            elif xmp is None and content.startswith(_XMP):
                xmp = orientation.from_xmp(content)
    if data.find(_FILL_RUN, 0, end) >= 0:
        raise TooMuchWork
    return ReducedFile(b"".join((view[:2], *parts, view[kept:end])), exif or xmp or orientation.UPRIGHT)
