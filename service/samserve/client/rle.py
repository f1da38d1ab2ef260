"""COCO's compressed run-length encoding, in which masks are transferred.

pycocotools reads it too, but takes five times as long to create a row-major mask of a large photo, and under NumPy 2
emits a warning at every use, which fails callers that treat warnings as errors.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt


def decode_rle(counts: bytes, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a mask to bool `[H, W]`.

    Args:
        counts: text of run lengths, column-major, beginning with background.
        size: (H, W).

    Raises:
        ValueError: the runs do not fill the mask.
    """
    height, width = size
    runs = _run_lengths(counts)
    if runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise ValueError(f"the run lengths do not sum to the size of the mask, {height} x {width}")
    changes = np.cumsum(runs[:-1])
    # True where a pixel differs from the pixel above it; the first row is compared with an empty one.
    mask = np.zeros(size, dtype=np.bool_)
    inside = changes[changes < height * width]
    np.logical_xor.at(mask, (inside % height, inside // height), True)
    mask[0] ^= np.searchsorted(changes, np.arange(width) * height) % 2 == 1
    for above, row in pairwise(mask):
        np.logical_xor(row, above, out=row)
    return mask


def encode_rle(mask: npt.NDArray[np.bool_]) -> bytes:
    """Encode a mask, bool `[H, W]`: the inverse of `decode_rle`."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    ends = np.concatenate([changes, [pixels.size]]) if pixels.size else changes
    # The first run is background, and has length 0 if the mask starts with the object.
    starts = [0, 0] if pixels.size and pixels[0] else [0]
    runs = np.diff(np.concatenate([starts, ends])).tolist()
    return b"".join(_digits(run - runs[index - 2] if index > 2 else run) for index, run in enumerate(runs))


def _digits(number: int) -> bytes:
    digits = bytearray()
    more = True
    while more:
        digit = number & 0x1F
        number >>= 5
        more = number != (-1 if digit & 0x10 else 0)
        digits.append(48 + (digit | 0x20 if more else digit))
    return bytes(digits)


def _run_lengths(counts: bytes) -> npt.NDArray[np.int64]:
    """Decode numbers of five-bit digits, lowest first. The sixth bit of each digit says whether more digits follow.

    The highest bit of a number is its sign. From the fourth number on, numbers are differences to the last but one.
    """
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    last = digits & 0x20 == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))[: np.count_nonzero(last)]
    lengths = np.diff(np.concatenate([starts, [len(digits)]]))
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((digits & 0x1F) << shifts, starts) if len(starts) else np.zeros(0, dtype=np.int64)
    negative = digits[starts + lengths - 1] & 0x10 != 0
    numbers -= np.where(negative, 1 << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
