"""Padding of prompts: few shapes, and the prompts themselves untouched."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from samserve.adapters.triton.padding import pad_prompts
from samserve.domain.prompts import PointLabel, PromptBatch

LOW_RES_SIZE = 4


@given(st.integers(1, 40), st.integers(1, 70), st.booleans())
def test_prompts_keep_their_place_among_padding(count: int, points: int, with_mask: bool) -> None:
    rng = np.random.default_rng(count * 100 + points)
    prompts = PromptBatch(
        rng.random((count, points, 2), np.float32),
        rng.integers(0, 4, (count, points), np.int32),
        rng.random((count, LOW_RES_SIZE, LOW_RES_SIZE), np.float32),
        np.full(count, with_mask, np.float32),
    )
    padded = pad_prompts(prompts)
    more, longer = padded.point_labels.shape
    assert {more, longer} <= {1 << power for power in range(8)}
    assert count <= more < 2 * count
    assert points <= longer < max(3, 2 * points)
    np.testing.assert_array_equal(padded.point_coords[:count, :points], prompts.point_coords)
    np.testing.assert_array_equal(padded.point_labels[:count, :points], prompts.point_labels)
    np.testing.assert_array_equal(padded.mask_input[:count], prompts.mask_input)
    np.testing.assert_array_equal(padded.has_mask_input[:count], prompts.has_mask_input)
    rest = np.ones((more, longer), bool)
    rest[:count, :points] = False
    assert (padded.point_labels[rest] == PointLabel.BATCH_PADDING).all()
    assert not padded.has_mask_input[count:].any()
    assert padded.mask_input.shape == (more, LOW_RES_SIZE, LOW_RES_SIZE)
    assert [array.dtype for array in (padded.point_coords, padded.point_labels)] == [np.float32, np.int32]
