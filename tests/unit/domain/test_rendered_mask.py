"""Masks in the forms that callers ask for: outlines and logits."""

import cv2
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samserve.domain.geometry import Size
from samserve.domain.masks import Mask
from samserve.domain.rendered_mask import LogitsMask, PolygonMask, Ring


def mask_of(window: npt.NDArray[np.bool_], left: int, top: int) -> Mask:
    return Mask(Size(40, 50), window, top, left, 0.9, 0.9, np.zeros((8, 8), np.float32))


def filled(rings: list[Ring]) -> npt.NDArray[np.bool_]:
    """The pixels inside rings, their outlines included."""
    image = np.zeros((40, 50), np.uint8)
    for ring in rings:
        # Rings go through the centres of pixels, which lie half a pixel from their corners.
        cv2.fillPoly(image, [np.round(np.asarray(ring) - 0.5).astype(np.int32)], 1)
    return image > 0


@given(
    arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(0, 38), st.integers(0, 28)
)
def test_polygons_outline_each_connected_region_with_its_holes(
    window: npt.NDArray[np.bool_], left: int, top: int
) -> None:
    mask = mask_of(window, left, top)
    polygons = PolygonMask.trace(mask).polygons
    regions = cv2.connectedComponents(window.astype(np.uint8), connectivity=8)[0] - 1
    assert len(polygons) == regions
    full = np.zeros((40, 50), np.bool_)
    full[top : top + window.shape[0], left : left + window.shape[1]] = window
    # Whatever lies outside of a hole's outline and inside of an exterior belongs to the mask.
    exteriors = filled([polygon.exterior for polygon in polygons])
    holes = filled([hole for polygon in polygons for hole in polygon.holes])
    assert (exteriors | ~full).all()
    assert (full | holes | ~exteriors).all()


def test_an_empty_mask_has_no_polygons() -> None:
    assert PolygonMask.trace(mask_of(np.zeros((0, 0), np.bool_), 0, 0)).polygons == []


@given(arrays.arrays(np.float32, (4, 4), elements=st.floats(-1e9, 1e9, width=32)))
def test_logits_keep_their_sign_and_stay_in_the_range_of_half_precision(logits: npt.NDArray[np.float32]) -> None:
    values = LogitsMask.of(logits).values
    assert values.dtype == np.float16
    assert np.isfinite(values).all()
    assert ((values > 0) <= (logits > 0)).all()
    assert ((values < 0) <= (logits < 0)).all()
    np.testing.assert_allclose(values, np.clip(logits, -65504, 65504), rtol=1e-3, atol=1e-7)
