"""Masks for photographs by a larger model's own confidence; and where that model comes from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.tiny import TinySam
from training.mobile_sam import CHECKPOINT, fetch_checkpoint
from training.samples import SIDE
from training.teacher import confident_masks, random_crop, segment

IMAGE = np.zeros((96, 128, 3), dtype=np.uint8)
SIDE_OF_INPUT = 128


def _logits(*boxes: tuple[int, int, int, int], height: float = 8.0) -> torch.Tensor:
    """Low-res logits [N, 32, 32] that are positive inside each XYXY."""
    logits = torch.full((len(boxes), 32, 32), -height)
    for mask, (x0, y0, x1, y1) in zip(logits, boxes, strict=True):
        mask[y0:y1, x0:x1] = height
    return logits


SQUARES = ((2, 2, 10, 10), (12, 2, 20, 10), (2, 12, 20, 22))


def test_confident_stable_masks_are_kept_in_the_pixels_of_the_picture() -> None:
    found = confident_masks(IMAGE, _logits(*SQUARES), torch.tensor([0.9, 0.8, 0.95]), (128, 96), SIDE_OF_INPUT)
    assert found is not None
    assert found.weights.tolist() == pytest.approx([0.95, 0.9, 0.8])
    expected = np.zeros((96, 128), dtype=bool)
    expected[8:40, 8:40] = True
    mask = found.mask(1)
    assert (mask & expected).sum() / (mask | expected).sum() > 0.9


def test_unsure_unstable_and_repeated_masks_are_left_out() -> None:
    logits = torch.cat([_logits(*SQUARES, SQUARES[0], (22, 2, 30, 10)), _logits((22, 12, 30, 20), height=0.5)])
    scores = torch.tensor([0.9, 0.8, 0.95, 0.85, 0.3, 0.99])
    found = confident_masks(IMAGE, logits, scores, (128, 96), SIDE_OF_INPUT)
    assert found is not None
    assert found.weights.tolist() == pytest.approx([0.95, 0.9, 0.8])


def test_picture_with_fewer_than_three_masks_teaches_nothing() -> None:
    assert confident_masks(IMAGE, _logits(*SQUARES[:2]), torch.tensor([0.9, 0.9]), (128, 96), SIDE_OF_INPUT) is None


def test_a_model_that_trusts_nothing_leaves_no_masks() -> None:
    torch.manual_seed(0)
    assert segment(TinySam(64).eval(), IMAGE, np.random.default_rng(0)) is None


@pytest.mark.parametrize("shape", [(40, 900, 3), (700, 500, 3)])
def test_crops_fill_the_side_of_a_sample(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        crop = random_crop(np.zeros(shape, dtype=np.uint8), rng)
        assert max(crop.shape[:2]) == SIDE
        assert min(crop.shape[:2]) >= 32


def test_another_file_under_the_name_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"not the published weights")
    with pytest.raises(ValueError, match="remove it and run"):
        fetch_checkpoint(tmp_path)
