"""The client reads what pycocotools writes, and writes the same."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from samserve.client.rle import decode_rle, encode_rle


def encode(mask: npt.NDArray[np.bool_]) -> bytes:
    counts: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return bytes(counts)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), fill=st.nothing()))
def test_any_mask_comes_back_as_it_was(mask: npt.NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(decode_rle(encode(mask), (mask.shape[0], mask.shape[1])), mask)
    assert encode_rle(mask) == encode(mask)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.99, 1.0])
def test_long_runs_and_long_numbers_come_back_as_they_were(density: float) -> None:
    mask = np.random.default_rng(0).random((700, 900)) < density
    np.testing.assert_array_equal(decode_rle(encode(mask), (700, 900)), mask)
    assert encode_rle(mask) == encode(mask)


def test_runs_of_length_zero_and_runs_past_the_foot_of_a_column() -> None:
    # 0 background, 3 object, 0 background, 1 object, 2 background on 2 rows and 3 columns.
    assert decode_rle(b"030N2", (2, 3)).tolist() == [[True, True, False], [True, True, False]]


@pytest.mark.parametrize("counts", [b"", b"3", b"9"])
def test_runs_that_do_not_fill_the_mask_are_refused(counts: bytes) -> None:
    with pytest.raises(ValueError, match="do not sum"):
        decode_rle(counts, (2, 2))
