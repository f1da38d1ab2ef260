"""Edges from masks, by the zero-shot edge detection of SAM's paper (appendix).

"Sobel filtering of the remaining masks' unthresholded probability maps", only on the outer boundary pixels of each
mask; then the maximum over all masks, scaling to [0, 1], and thinning to the crests of ridges.
"""

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame, mask_taps
from samserve.domain.masks import Mask
from samserve.domain.sampling import bilinear

_BLOCK_ROWS = 512
"""Rows per block. Thinning needs a few arrays of the photo's width and this many rows."""

_CREST_SIGMA = 1.0
_NORMAL_SIGMA = 2.0
"""Standard deviation in pixels of the Gaussian smoothing before crests and their directions are computed, as in Canny's
detector."""

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

_MARGIN = 12
"""Rows around a block that affect its result: the radii of both Gaussians, two derivatives and one neighbour."""


def trace_outline(edges: npt.NDArray[np.float32], mask: Mask, frame: ImageFrame) -> None:
    """Raise an edge map, float32 `[H, W]`, to the edge strength of one mask on the mask's outer boundary."""
    rows, columns = _outer_boundary(mask)
    if len(rows):
        strength = _sobel(_logits_around(mask.low_res_mask, frame, rows, columns))
        edges[rows, columns] = np.maximum(edges[rows, columns], strength)


def thin(edges: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Thin an edge map `[H, W]` to crests one pixel wide, scaled to [0, 1]."""
    thinned = np.zeros_like(edges)
    for top in range(0, len(edges), _BLOCK_ROWS):
        first = max(0, top - _MARGIN)
        block = _crests(edges[first : top + _BLOCK_ROWS + _MARGIN])
        thinned[top : top + _BLOCK_ROWS] = block[top - first : top - first + _BLOCK_ROWS]
    highest = float(thinned.max(initial=0.0))
    return thinned / np.float32(highest) if highest else thinned


def _outer_boundary(mask: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns in the image of the pixels that share a side with the mask but do not belong to it."""
    inside = np.pad(mask.window, 1).astype(np.uint8)
    rows, columns = np.nonzero(cv2.dilate(inside, _CROSS) > inside)
    rows, columns = rows + mask.top - 1, columns + mask.left - 1
    height, width = mask.original_size
    within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return rows[within], columns[within]


def _logits_around(
    low_res_mask: npt.NDArray[np.float32],
    frame: ImageFrame,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
) -> npt.NDArray[np.float32]:
    """Logits `[N, 3, 3]` at full resolution around N pixels. Beyond the image's edge, the edge's values are
    repeated."""
    original, low_res_size = frame.original_size, len(low_res_mask)
    around = np.arange(-1, 2)
    ys = np.clip(rows[:, None] + around, 0, original.height - 1)
    xs = np.clip(columns[:, None] + around, 0, original.width - 1)
    row_taps = mask_taps(low_res_size, frame.image_size, frame.input_size.height, original.height)
    column_taps = mask_taps(low_res_size, frame.image_size, frame.input_size.width, original.width)
    top = int(ys.min())
    down, sources = row_taps.matrix(slice(top, int(ys.max()) + 1))
    tall = down @ low_res_mask[sources]
    logits = np.zeros((len(rows), 3, 3), dtype=np.float32)
    for tap in range(column_taps.indices.shape[1]):
        weights = column_taps.weights[xs, tap].astype(np.float32)
        logits += weights[:, None, :] * tall[(ys - top)[:, :, None], column_taps.indices[xs, tap][:, None, :]]
    return logits


def _sobel(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Magnitude `[N]` of the gradient of probabilities `[N, 3, 3]`, by Sobel's operator."""
    probabilities = 0.5 + 0.5 * np.tanh(0.5 * logits)
    # The neighbourhoods are stacked, so that one filter call computes the gradient at each centre.
    column = probabilities.reshape(-1, 3)
    across, down = cv2.Sobel(column, cv2.CV_32F, 1, 0)[1::3, 1], cv2.Sobel(column, cv2.CV_32F, 0, 1)[1::3, 1]
    magnitude: npt.NDArray[np.float32] = np.hypot(across, down)
    return magnitude


def _crests(edges: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Keep the smoothed map where it is not below its two neighbours across the ridge; set it to 0 elsewhere."""
    height = _blur(edges, _CREST_SIGMA)
    rows, columns = np.nonzero(height > np.float32(1e-4))
    across, down = _normals(_blur(edges, _NORMAL_SIGMA), rows, columns)
    here = height[rows, columns]
    ahead = bilinear(height, rows + down, columns + across)
    behind = bilinear(height, rows - down, columns - across)
    # Of two equal neighbours, one is kept.
    crest = (here > ahead) & (here >= behind)
    crests = np.zeros_like(edges)
    crests[rows[crest], columns[crest]] = here[crest]
    return crests


def _normals(
    surface: npt.NDArray[np.float32], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Unit vectors (x, y) across the ridges: the eigenvector of the Hessian's smaller eigenvalue."""
    # Derivatives need neighbours, so images of one row or column are padded.
    down, across = np.gradient(np.pad(surface, 1, mode="edge"))
    down_down, down_across = np.gradient(down)
    across_across = np.gradient(across, axis=1)
    xx, yy, xy = (part[rows + 1, columns + 1] for part in (across_across, down_down, down_across))
    along = 0.5 * np.arctan2(2 * xy, xx - yy)
    return -np.sin(along), np.cos(along)


def _blur(surface: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    side = 2 * round(3 * sigma) + 1
    return np.asarray(cv2.GaussianBlur(surface, (side, side), sigma, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
