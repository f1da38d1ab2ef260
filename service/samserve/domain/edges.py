"""Edges from masks, as SAM's paper draws them without training for it (appendix on zero-shot edge detection).

"Sobel filtering of the remaining masks' unthresholded probability maps", only on the outer boundary pixels of each
mask; the largest value over all masks; scaled to [0, 1]; thinned by suppressing what is not the crest of its ridge.
"""

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame, mask_taps
from samserve.domain.masks import Mask
from samserve.domain.sampling import bilinear

_BLOCK_ROWS = 512
"""Thinning takes a few arrays of the photo's width and so many rows."""

_CREST_SIGMA = 1.0
_NORMAL_SIGMA = 2.0
"""Of the Gaussians, in pixels, before crests and their directions are looked for, as Canny smooths."""

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

_MARGIN = 12
"""Rows beyond a block that its result depends on: both Gaussians' radii, two derivatives, one neighbour."""


def trace_outline(edges: npt.NDArray[np.float32], mask: Mask, frame: ImageFrame) -> None:
    """Raise an edge map, float32 `[H, W]`, to the edge strength of one mask on its outer boundary."""
    rows, columns = _outer_boundary(mask)
    if len(rows):
        strength = _sobel(_logits_around(mask.low_res_mask, frame, rows, columns))
        edges[rows, columns] = np.maximum(edges[rows, columns], strength)


def thin(edges: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The crests of an edge map `[H, W]`, one pixel wide, scaled to [0, 1]."""
    thinned = np.zeros_like(edges)
    for top in range(0, len(edges), _BLOCK_ROWS):
        first = max(0, top - _MARGIN)
        block = _crests(edges[first : top + _BLOCK_ROWS + _MARGIN])
        thinned[top : top + _BLOCK_ROWS] = block[top - first : top - first + _BLOCK_ROWS]
    highest = float(thinned.max(initial=0.0))
    return thinned / np.float32(highest) if highest else thinned


def _outer_boundary(mask: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns, in the image, of the pixels that share a side with the mask and are not of it."""
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
    """Logits `[N, 3, 3]` at full resolution around N pixels; beyond the image's edge, those at the edge."""
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
    """Magnitude `[N]` of the gradient of the probabilities `[N, 3, 3]`, by Sobel's operator."""
    probabilities = 0.5 + 0.5 * np.tanh(0.5 * logits)
    # Below one another, so that each of them surrounds the pixel in its middle.
    column = probabilities.reshape(-1, 3)
    across, down = cv2.Sobel(column, cv2.CV_32F, 1, 0)[1::3, 1], cv2.Sobel(column, cv2.CV_32F, 0, 1)[1::3, 1]
    magnitude: npt.NDArray[np.float32] = np.hypot(across, down)
    return magnitude


def _crests(edges: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Where the smoothed map is not below its two neighbours across the ridge; elsewhere 0."""
    height = _blur(edges, _CREST_SIGMA)
    rows, columns = np.nonzero(height > np.float32(1e-4))
    across, down = _normals(_blur(edges, _NORMAL_SIGMA), rows, columns)
    here = height[rows, columns]
    ahead = bilinear(height, rows + down, columns + across)
    behind = bilinear(height, rows - down, columns - across)
    # Of two equal neighbours one stays.
    crest = (here > ahead) & (here >= behind)
    crests = np.zeros_like(edges)
    crests[rows[crest], columns[crest]] = here[crest]
    return crests


def _normals(
    surface: npt.NDArray[np.float32], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Unit vectors (x, y) across the ridges: the eigenvector of the Hessian that belongs to its lower eigenvalue."""
    # Derivatives of an image of one row or column need neighbours.
    down, across = np.gradient(np.pad(surface, 1, mode="edge"))
    down_down, down_across = np.gradient(down)
    across_across = np.gradient(across, axis=1)
    xx, yy, xy = (part[rows + 1, columns + 1] for part in (across_across, down_down, down_across))
    along = 0.5 * np.arctan2(2 * xy, xx - yy)
    return -np.sin(along), np.cos(along)


def _blur(surface: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    side = 2 * round(3 * sigma) + 1
    return np.asarray(cv2.GaussianBlur(surface, (side, side), sigma, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
