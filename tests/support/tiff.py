"""TIFF files by hand."""

import struct
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy.typing as npt

_SHORT, _LONG = 3, 4


def tiff_of(
    samples: npt.NDArray[Any],
    *,
    order: Literal["<", ">"] = "<",
    planar: bool = False,
    deflate: bool = False,
    photometric: int | None = None,
    tags: Mapping[int, tuple[int, ...]] | None = None,
    xmp: bytes = b"",
) -> bytes:
    """A TIFF of samples `[H, W, C]`.

    Args:
        order: `<` or `>`, of the bytes.
        tags: more of them, or others, with values of 16 bits.
    """
    height, width, channels = samples.shape
    file = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0))
    planes = [samples[..., channel] for channel in range(channels)] if planar else [samples]
    strips = []
    for plane in planes:
        data = plane.astype(plane.dtype.newbyteorder(order)).tobytes()
        data = zlib.compress(data) if deflate else data
        strips.append((len(file), len(data)))
        file += data
    entries: dict[int, tuple[int, tuple[int, ...] | bytes]] = {
        256: (_LONG, (width,)),
        257: (_LONG, (height,)),
        258: (_SHORT, (8 * samples.itemsize,) * channels),
        259: (_SHORT, (8 if deflate else 1,)),
        262: (_SHORT, ((2 if channels >= 3 else 1) if photometric is None else photometric,)),
        273: (_LONG, tuple(start for start, _ in strips)),
        277: (_SHORT, (channels,)),
        278: (_LONG, (height,)),
        279: (_LONG, tuple(length for _, length in strips)),
        284: (_SHORT, (2 if planar else 1,)),
        339: (_SHORT, ({"u": 1, "i": 2, "f": 3}[samples.dtype.kind],) * channels),
    }
    entries |= {tag: (_SHORT, values) for tag, values in (tags or {}).items()}
    if xmp:
        entries[700] = (1, xmp)
    directory = b""
    for tag, (kind, values) in sorted(entries.items()):
        content = (
            values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{'HI'[kind == _LONG]}", *values)
        )
        if len(content) > 4:
            position = len(file)
            file += content
            content = struct.pack(f"{order}I", position)
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    struct.pack_into(f"{order}I", file, 4, len(file))
    return bytes(file) + struct.pack(f"{order}H", len(entries)) + directory + struct.pack(f"{order}I", 0)
