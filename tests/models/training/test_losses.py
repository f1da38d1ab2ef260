"""SAM's losses, and the prompts of the interactive rounds."""

import torch

from training.losses import dice, focal, sam_loss, true_iou
from training.prompts import Prompts, error_points, next_prompts


def _square(size: int = 16, start: int = 4, end: int = 12) -> torch.Tensor:
    target = torch.zeros(size, size)
    target[start:end, start:end] = 1
    return target


def test_perfect_prediction_costs_next_to_nothing() -> None:
    target = _square()
    logits = 40 * (target - 0.5)
    assert float(focal(logits, target)) < 1e-6
    assert float(dice(logits, target)) < 1e-3
    assert float(true_iou(logits, target)) == 1.0


def test_half_covered_cells_cost_nothing_where_one_half_is_said() -> None:
    target = torch.full((8, 8), 0.5)
    assert float(focal(torch.zeros(8, 8), target)) < 1e-6


def test_only_the_best_of_the_three_masks_learns_from_an_ambiguous_prompt() -> None:
    target = _square().unsqueeze(0)
    masks = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    masks[0, 2] = 4 * (target[0] - 0.5)
    masks.requires_grad_(True)
    loss, _ = sam_loss(masks, torch.zeros(1, 4), target, torch.tensor([False]))
    loss.backward()
    assert masks.grad is not None
    learnt = masks.grad[0].abs().sum(dim=(1, 2)) > 0
    assert learnt.tolist() == [False, False, True, False]


def test_the_single_mask_learns_from_an_unambiguous_prompt() -> None:
    masks = torch.randn(1, 4, 16, 16, requires_grad=True)
    loss, _ = sam_loss(masks, torch.zeros(1, 4), _square().unsqueeze(0), torch.tensor([True]))
    loss.backward()
    assert masks.grad is not None
    assert masks.grad[0, 0].abs().sum() > 0


def test_predicted_iou_is_drawn_to_the_true_one() -> None:
    target = _square().unsqueeze(0)
    masks = (40 * (target - 0.5)).unsqueeze(1).expand(1, 4, 16, 16)
    right, _ = sam_loss(masks, torch.ones(1, 4), target, torch.tensor([True]))
    wrong, _ = sam_loss(masks, torch.zeros(1, 4), target, torch.tensor([True]))
    assert float(right) < 1e-2
    assert float(wrong) > 0.9


def test_error_point_lies_in_the_error_and_has_the_target_label() -> None:
    target = torch.stack([_square(), _square()])
    missed, spilt = -torch.ones(16, 16), -torch.ones(16, 16)
    missed[4:12, 4:8] = 1
    spilt[4:12, 4:16] = 1
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        coords, labels = error_points(torch.stack([missed, spilt]), target, generator)
        (x0, y0), (x1, y1) = (coords / 4).long().tolist()
        assert 8 <= x0 < 12
        assert 4 <= y0 < 12
        assert 12 <= x1 < 16
        assert 4 <= y1 < 12
        assert labels.tolist() == [1, 0]


def test_without_an_error_the_point_lies_on_the_object() -> None:
    target = _square().unsqueeze(0)
    coords, labels = error_points(40 * (target - 0.5), target, torch.Generator().manual_seed(1))
    x, y = (coords[0] / 4).long().tolist()
    assert target[0, y, x] == 1
    assert labels.tolist() == [1]


def test_next_round_keeps_every_other_row_and_adds_a_point() -> None:
    prompts = Prompts(
        coords=torch.zeros(4, 2, 2),
        labels=torch.tensor([[1, -1], [2, 3], [2, 3], [1, -1]]),
        image=torch.tensor([0, 0, 1, 1]),
        target=_square().expand(4, 16, 16),
    )
    assert prompts.unambiguous.tolist() == [False, True, True, False]
    following = next_prompts(prompts, -torch.ones(4, 16, 16), torch.Generator().manual_seed(0))
    assert following.coords.shape == (2, 3, 2)
    assert following.labels[:, :2].tolist() == [[1, -1], [2, 3]]
    assert following.image.tolist() == [0, 1]
    assert following.unambiguous.all()
