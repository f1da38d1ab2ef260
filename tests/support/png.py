"""PNG files by hand."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row, and the steps between columns and rows."""


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bit_depth: int = 8, pixel: bytes | None = None) -> bytes:
    """An RGB PNG: of one colour, or with a header only."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + pixel * width) * height) if pixel else b""
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_of(
    samples: npt.NDArray[Any],
    bit_depth: int,
    color_type: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of samples `[H, W, C]`, as the file counts them, with these chunks before and after the pixels."""
    height, width = samples.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, interlaced))
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in _PASSES] if interlaced else [samples]
    rows = zlib.compress(b"".join(b"\0" + row for part in passes for row in _rows(part, bit_depth)))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", rows) + after + chunk(b"IEND")


def _rows(samples: npt.NDArray[Any], bit_depth: int) -> Iterator[bytes]:
    for row in samples.reshape(len(samples), -1) if samples.size else ():
        if bit_depth >= 8:
            yield row.astype(">u2" if bit_depth == 16 else np.uint8).tobytes()
        else:
            bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bit_depth :]
            yield np.packbits(bits).tobytes()
