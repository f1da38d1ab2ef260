"""How far masks are from each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.differences import UNDECIDED, mask_iou

LARGEST = 20.0
SQUARE = np.full((4, 16, 16), -LARGEST, np.float32)
SQUARE[:, 4:12, 4:12] = LARGEST


def changed(logit: float, to: float) -> tuple[list[float], int]:
    """IoUs where ten pixels of the square's edge were to have one logit and have another; and its pixels."""
    logits, expected = SQUARE.copy(), SQUARE.copy()
    logits[0, 3, 3:13], expected[0, 3, 3:13] = to, logit
    return mask_iou(logits, expected), 64


@given(st.floats(-0.9, 0.9), st.floats(-1, 1))
def test_pixels_that_are_undecided_do_not_count(part: float, to: float) -> None:
    ious, _ = changed(part * UNDECIDED * LARGEST, to * LARGEST)
    assert ious == [1.0] * 4


@pytest.mark.parametrize("sign", [1, -1])
def test_pixels_that_are_decided_do(sign: int) -> None:
    ious, pixels = changed(sign * 1.1 * UNDECIDED * LARGEST, -sign * 0.01)
    assert ious == [pytest.approx(pixels / (pixels + 10)), 1.0, 1.0, 1.0]


def test_masks_that_are_empty_in_both_are_the_same() -> None:
    empty = np.minimum(SQUARE, -1)
    assert mask_iou(empty, empty) == [1.0] * 4
    assert mask_iou(SQUARE, empty) == [0.0] * 4
