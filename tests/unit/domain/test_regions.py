"""Removal of small holes and small separate regions."""

import cv2
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samserve.domain.geometry import Size
from samserve.domain.masks import Mask
from samserve.domain.regions import remove_small_regions


def mask_of(window: npt.NDArray[np.bool_]) -> Mask:
    return Mask(Size(40, 50), window, 10, 10, 0.9, 0.9, np.zeros((8, 8), np.float32))


def areas(pixels: npt.NDArray[np.bool_]) -> list[int]:
    """Pixels of each region, diagonal neighbours connected as SAM has them."""
    statistics = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)[2]
    return [int(area) for area in statistics[1:, cv2.CC_STAT_AREA]]


@given(
    arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(lambda window: window.any()),
    st.integers(1, 20),
)
def test_no_small_region_or_hole_is_left_but_a_mask_is_never_empty(
    window: npt.NDArray[np.bool_], min_area: int
) -> None:
    cleaned = remove_small_regions(mask_of(window), min_area).full()
    regions = areas(cleaned)
    assert regions
    assert len(regions) == 1 or min(regions) >= min_area
    assert min(areas(~cleaned)) >= min_area


def test_a_mask_of_small_regions_alone_keeps_the_largest() -> None:
    window = np.zeros((9, 9), np.bool_)
    window[0, 0] = window[4, 4:7] = True
    cleaned = remove_small_regions(mask_of(window), 20).full()
    assert areas(cleaned) == [3]
    assert cleaned[14, 14:17].all()


def test_a_mask_without_small_regions_is_the_same_object() -> None:
    mask = mask_of(np.ones((6, 6), np.bool_))
    assert remove_small_regions(mask, 5) is mask
