"""Edges lie on the outer boundaries of masks, one pixel wide, the sharper ones brighter."""

import numpy as np
import numpy.typing as npt
import pytest

from samserve.domain.edges import thin, trace_outline
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.masks import upsample_mask

FRAME = ImageFrame(Size(120, 180), 180)
LOW_RES = 90


def disc(x: float, y: float, radius: float, slope: float) -> npt.NDArray[np.float32]:
    """Logits that rise by `slope` a pixel towards a disc's centre."""
    centres = (np.arange(LOW_RES) + 0.5) * 180 / LOW_RES
    distance = np.hypot(centres[None, :] - x, centres[:, None] - y)
    return (slope * (radius - distance)).astype(np.float32)


def traced(*logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    edges = np.zeros(FRAME.original_size, dtype=np.float32)
    for low_res in logits:
        trace_outline(edges, upsample_mask(low_res, 0.9, FRAME), FRAME)
    return edges


def test_outline_is_just_outside_the_mask() -> None:
    low_res = disc(90, 60, 30, 0.5)
    edges, mask = traced(low_res), upsample_mask(low_res, 0.9, FRAME).full()
    assert not (edges > 0)[mask].any()
    ys, xs = np.nonzero(edges)
    assert np.abs(np.hypot(xs + 0.5 - 90, ys + 0.5 - 60) - 30).max() < 2


def test_strength_is_sobels_of_the_probability() -> None:
    # Along the diameter the probability is a sigmoid of the distance; Sobel's weights sum to 4 over two pixels.
    slope = 0.4
    edges = traced(disc(90, 60, 30, slope))
    column = int(np.flatnonzero(edges[60, 90:])[0]) + 90
    sides = [1 / (1 + np.exp(-slope * (30 - (x + 0.5 - 90)))) for x in (column - 1, column + 1)]
    assert edges[60, column] == pytest.approx(4 * (sides[0] - sides[1]), rel=0.03)


def test_thin_edges_are_one_pixel_wide_closed_and_scaled() -> None:
    # An object and its surroundings: outlines on both sides of the same edge.
    shape = disc(90, 60, 40, 0.5)
    edges = thin(traced(shape, -shape))
    assert edges.max() == 1.0
    ys, xs = np.nonzero(edges > 0.3)
    radii, angles = np.hypot(xs + 0.5 - 90, ys + 0.5 - 60), np.arctan2(ys + 0.5 - 60, xs + 0.5 - 90)
    assert np.abs(radii - 40).max() < 1.5
    assert np.diff(np.sort(angles)).max() < 0.15
    assert len(ys) < 1.3 * 2 * np.pi * 40


def test_sharper_edges_are_brighter() -> None:
    edges = thin(traced(disc(50, 60, 25, 1.0), disc(130, 60, 25, 0.2)))
    assert edges[:, :90].max() > 2 * edges[:, 90:].max() > 0


def test_blocks_leave_no_seam() -> None:
    tall = np.zeros((1100, 40), dtype=np.float32)
    tall[:, 20] = 0.5
    assert (thin(tall)[2:-2, 20] == 1).all()
    assert not thin(tall)[:, :18].any()


def test_masks_at_the_border_and_without_pixels_are_traced() -> None:
    everything = np.full((LOW_RES, LOW_RES), 5, dtype=np.float32)
    assert not traced(everything, -everything).any()
    assert traced(disc(0, 0, 30, 0.5)).any()
    assert not thin(np.zeros((3, 3), dtype=np.float32)).any()
    assert thin(np.ones((1, 1), dtype=np.float32)).shape == (1, 1)
