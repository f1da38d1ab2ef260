"""SAM's losses: focal and dice on the masks, squared error on the predicted IoU; only the best of three masks is
trained."""

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 1.0


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss (gamma 2) for soft targets in [0, 1], averaged over the last two axes."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # The best prediction for a half covered cell is one half. The remaining loss is the target's own entropy, not an
    # error.
    floor = F.binary_cross_entropy(target, target, reduction="none")
    return ((target - logits.sigmoid()).square() * (entropy - floor)).mean(dim=(-2, -1))


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft dice coefficient over the last two axes."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum(dim=(-2, -1))
    total = probability.square().sum(dim=(-2, -1)) + target.square().sum(dim=(-2, -1))
    return 1 - (overlap + 1) / (total + 1)


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of the thresholded mask and the thresholded target over the last two axes."""
    mask, inside = logits > 0, target > 0.5
    overlap = (mask & inside).sum(dim=(-2, -1))
    return overlap / (mask | inside).sum(dim=(-2, -1)).clamp(min=1)


def sam_loss(masks: Tensor, ious: Tensor, target: Tensor, unambiguous: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The loss of masks [R, 4, H, W] and iou_predictions [R, 4] against target [R, H, W], and figures to log.

    Of the masks 1..3 only the best learns the target; mask 0 learns where the prompt is unambiguous [R].
    """
    wide = target.unsqueeze(1).expand_as(masks)
    each = FOCAL_WEIGHT * focal(masks, wide) + DICE_WEIGHT * dice(masks, wide)
    best, choice = each[:, 1:].min(dim=1)
    single = torch.where(unambiguous, each[:, 0], 0.0)
    truth = true_iou(masks.detach(), wide)
    iou_error = (ious - truth).square().mean()
    figures = {
        "mask_loss": float(best.detach().mean()),
        "iou_error": float(iou_error.detach()),
        "iou_best": float(truth[:, 1:].gather(1, choice[:, None]).mean()),
        "iou_chosen": float(truth[:, 1:].gather(1, ious[:, 1:].argmax(1, keepdim=True)).mean()),
    }
    return (best + single).mean() + IOU_WEIGHT * iou_error, figures
