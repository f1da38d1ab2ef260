"""PNG files by hand."""

import struct
import zlib


def png(width: int, height: int, bit_depth: int = 8, pixel: bytes | None = None) -> bytes:
    """An RGB PNG: of one colour, or with a header only."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + pixel * width) * height) if pixel else b""
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
