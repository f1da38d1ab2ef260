"""Masks are resampled and scored as PyTorch and SAM do it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain.geometry import ImageFrame, linear_taps
from samserve.domain.masks import upsample_mask
from tests.support.mask_strategies import Logits, frames, logits


def sam_postprocess(low_res_mask: Logits, frame: ImageFrame) -> Logits:
    """`Sam.postprocess_masks` of segment-anything, written from its description: logits `[H, W]`."""
    square = F.interpolate(
        torch.from_numpy(low_res_mask)[None, None], (frame.image_size,) * 2, mode="bilinear", align_corners=False
    )
    cropped = square[..., : frame.input_size.height, : frame.input_size.width]
    original: torch.Tensor = F.interpolate(cropped, tuple(frame.original_size), mode="bilinear")
    return np.asarray(original[0, 0].numpy(), dtype=np.float32)


@given(logits(), frames())
def test_mask_equals_sams_own_postprocessing(low_res_mask: Logits, frame: ImageFrame) -> None:
    expected = sam_postprocess(low_res_mask, frame)
    mask = upsample_mask(low_res_mask, 0.5, frame)
    certain = np.abs(expected) > 1e-4
    np.testing.assert_array_equal(mask.full()[certain], (expected > 0)[certain])


@given(logits(), frames())
def test_stability_score_equals_sams(low_res_mask: Logits, frame: ImageFrame) -> None:
    expected = sam_postprocess(low_res_mask, frame)
    inner, outer = int((expected > 1).sum()), int((expected > -1).sum())
    uncertain = int((np.abs(np.abs(expected) - 1) < 1e-4).sum())
    score = upsample_mask(low_res_mask, 0.5, frame).stability_score
    assert score == pytest.approx(inner / outer if outer else 0.0, abs=(uncertain + 1e-9) / max(outer, 1))


@given(st.integers(1, 40), st.integers(1, 90))
def test_linear_taps_resample_as_pytorch_does(source: int, target: int) -> None:
    values = np.random.default_rng(source * 91 + target).normal(size=source).astype(np.float32)
    taps = linear_taps(source, target)
    ours = (values[taps.indices] * taps.weights).sum(axis=1)
    theirs = F.interpolate(torch.from_numpy(values)[None, None], size=target, mode="linear", align_corners=False)
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=1e-5)
