"""Conversion of the decoder's logits to masks of the original image."""

import zlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame, Size, mask_taps

MASK_THRESHOLD = 0.0
"""Logits above it belong to the object: SAM's `mask_threshold`."""

STABILITY_SCORE_OFFSET = 1.0
"""Shift of the threshold for the stability score: SAM's `stability_score_offset`."""

SINGLE_MASK = slice(0, 1)
"""Index of the decoder's mask for unambiguous prompts."""

MULTIMASK = slice(1, None)
"""Indices of the decoder's three masks for ambiguous prompts: SAM's `multimask_output`."""

_BLOCK_COLUMNS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One mask of one prompt, stored as the window of the image outside which it is empty.

    Attributes:
        original_size: of the whole image.
        window: bool `[h, w]`, column-major as COCO's run lengths are.
        top: row of the image where the window starts.
        left: column of the image where the window starts.
        iou_prediction: the model's estimate of the mask's IoU with the object meant.
        stability_score: IoU of the mask at thresholds +1 and -1; 0 where both are empty.
        low_res_mask: float32 `[M, M]`, the logits it was made from.
    """

    original_size: Size
    window: npt.NDArray[np.bool_]
    top: int
    left: int
    iou_prediction: float
    stability_score: float
    low_res_mask: npt.NDArray[np.float32]

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.window))

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """Tight box XYXY in pixels of the image, right and bottom exclusive; zeros if the mask is empty."""
        rows = np.flatnonzero(self.window.any(axis=1))
        if not len(rows):
            return (0.0, 0.0, 0.0, 0.0)
        columns = np.flatnonzero(self.window.any(axis=0))
        return (
            float(self.left + columns[0]),
            float(self.top + rows[0]),
            float(self.left + columns[-1] + 1),
            float(self.top + rows[-1] + 1),
        )

    def full(self) -> npt.NDArray[np.bool_]:
        """The mask as bool `[H, W]` of the original image."""
        full = np.zeros(self.original_size, dtype=np.bool_)
        height, width = self.window.shape
        full[self.top : self.top + height, self.left : self.left + width] = self.window
        return full


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask compressed to about a hundredth of its memory, for masks that wait to be selected.

    Attributes:
        mask: the mask without pixels and logits.
        shape: of the window.
        pixels: of the window, bits, compressed.
    """

    mask: Mask
    shape: tuple[int, int]
    pixels: bytes

    @classmethod
    def pack(cls, mask: Mask) -> "PackedMask":
        """Compress a mask. Its logits are discarded."""
        bits = np.packbits(mask.window.T)
        hollow = replace(mask, window=np.zeros((0, 0), dtype=np.bool_), low_res_mask=np.zeros((0, 0), dtype=np.float32))
        rows, columns = mask.window.shape
        return cls(hollow, (rows, columns), zlib.compress(bits.tobytes(), level=1))

    def unpack(self) -> Mask:
        """Decompress the mask, with a `low_res_mask` of size 0."""
        rows, columns = self.shape
        bits = np.frombuffer(zlib.decompress(self.pixels), dtype=np.uint8)
        window = np.unpackbits(bits, count=rows * columns).view(np.bool_).reshape(columns, rows).T
        return replace(self.mask, window=window)


def upsample_mask(
    low_res_mask: npt.NDArray[np.float32],
    iou_prediction: float,
    frame: ImageFrame,
    stability_score_offset: float = STABILITY_SCORE_OFFSET,
) -> Mask:
    """Threshold logits at the original resolution, as SAM's `postprocess_masks` does, in the region where they can
    exceed the threshold.

    Interpolation never exceeds its inputs. So only output pixels that depend on a logit above the lower stability
    threshold are computed, and the cost depends on the size of the object instead of the photo.

    Args:
        low_res_mask: float32 `[M, M]` logits over the model's square input.
        stability_score_offset: shift of the threshold in both directions for the stability score, not negative.
    """
    original, low_res_size = frame.original_size, low_res_mask.shape[0]
    possible = low_res_mask > MASK_THRESHOLD - stability_score_offset
    row_taps = mask_taps(low_res_size, frame.image_size, frame.input_size.height, original.height)
    column_taps = mask_taps(low_res_size, frame.image_size, frame.input_size.width, original.width)
    rows = row_taps.reached_by(np.flatnonzero(possible.any(axis=1)))
    columns = column_taps.reached_by(np.flatnonzero(possible.any(axis=0)))
    if rows.start == rows.stop or columns.start == columns.stop:
        return Mask(original, np.zeros((0, 0), dtype=np.bool_), 0, 0, iou_prediction, 0.0, low_res_mask)
    down, source_rows = row_taps.matrix(rows)
    across, source_columns = column_taps.matrix(columns)
    tall = low_res_mask[source_rows, source_columns].T @ down.T
    window = np.empty((columns.stop - columns.start, rows.stop - rows.start), dtype=np.bool_)
    # Allocating large arrays page by page costs more than filling them, so all blocks share these.
    logits = np.empty((_BLOCK_COLUMNS, window.shape[1]), dtype=np.float32)
    above = np.empty(logits.shape, dtype=np.bool_)
    inner = outer = 0
    for start in range(0, len(window), _BLOCK_COLUMNS):
        block = slice(start, min(start + _BLOCK_COLUMNS, len(window)))
        sources = column_taps.inputs(slice(columns.start + block.start, columns.start + block.stop))
        band = slice(sources.start - source_columns.start, sources.stop - source_columns.start)
        values, above_it = logits[: block.stop - block.start], above[: block.stop - block.start]
        np.matmul(across[block, band], tall[band], out=values)
        np.greater(values, MASK_THRESHOLD, out=window[block])
        inner += int(np.count_nonzero(np.greater(values, MASK_THRESHOLD + stability_score_offset, out=above_it)))
        outer += int(np.count_nonzero(np.greater(values, MASK_THRESHOLD - stability_score_offset, out=above_it)))
    stability_score = inner / outer if outer else 0.0
    return Mask(original, window.T, rows.start, columns.start, iou_prediction, stability_score, low_res_mask)


def run_lengths(mask: Mask) -> npt.NDArray[np.int64]:
    """COCO's uncompressed RLE: column-major run lengths of the whole image, starting with background."""
    height, width = mask.original_size
    window = mask.window.T
    is_change = np.zeros((window.shape[0], window.shape[1] + 1), dtype=np.bool_)
    is_change[:, :-1] ^= window
    is_change[:, 1:] ^= window
    column, row = np.divmod(np.flatnonzero(is_change), is_change.shape[1])
    changes = (mask.left + column) * height + mask.top + row
    # A run that continues from the bottom of one column at the top of the next is a single run.
    joined = np.flatnonzero(changes[:-1] == changes[1:])
    changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    runs: npt.NDArray[np.int64] = np.diff(changes, prepend=0, append=height * width)
    return runs[:-1] if len(changes) and runs[-1] == 0 else runs
