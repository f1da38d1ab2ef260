"""Differences between masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.differences import UNDECIDED, mask_iou

LARGEST = 20.0
BOUND = UNDECIDED * LARGEST
SQUARE = np.full((4, 16, 16), -LARGEST, np.float32)
SQUARE[:, 4:12, 4:12] = LARGEST
AREA = 64

near_zero = st.floats(-0.9 * BOUND, 0.9 * BOUND)


def changed(expected_logit: float, logit: float) -> list[float]:
    """IoUs where ten pixels at the edge of the first square were to have one logit and have another."""
    logits, expected = SQUARE.copy(), SQUARE.copy()
    expected[0, 3, 3:13], logits[0, 3, 3:13] = expected_logit, logit
    return mask_iou(logits, expected)


@given(near_zero, near_zero)
def test_pixels_that_rounding_took_across_zero_do_not_count(expected: float, logit: float) -> None:
    assert changed(expected, logit) == [1.0] * 4


@pytest.mark.parametrize(("expected", "logit"), [(1.1, -0.1), (0.1, -1.1), (0.1, -50)])
def test_pixels_that_are_decided_in_either_count(expected: float, logit: float) -> None:
    assert changed(expected * BOUND, logit * BOUND) == [pytest.approx(AREA / (AREA + 10)), 1.0, 1.0, 1.0]


def test_a_weak_mask_is_judged_by_its_own_logits() -> None:
    weak = SQUARE.copy()
    weak[1] *= UNDECIDED / 2
    inverted = weak.copy()
    inverted[1] *= -1
    assert mask_iou(inverted, weak) == [1.0, 0.0, 1.0, 1.0]


def test_masks_that_are_empty_in_both_are_the_same() -> None:
    empty = np.minimum(SQUARE, -1)
    assert mask_iou(empty, empty) == [1.0] * 4
    assert mask_iou(SQUARE, empty) == [0.0] * 4
