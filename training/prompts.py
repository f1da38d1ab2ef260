"""Interactive rounds as in SAM's training: first a point or a box, then points in the previous mask's error region."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.dataset import CELL, Batch
from training.forward import BOX_END, BOX_START, FOREGROUND, PADDING


@dataclass(frozen=True)
class Prompts:
    """One prompt a row: coords [R, N, 2] (x, y) pixels of the padded input, labels [R, N], image [R] row -> image,
    target [R, S/4, S/4], previous low-res logits [R, S/4, S/4] or None in the first round."""

    coords: Tensor
    labels: Tensor
    image: Tensor
    target: Tensor
    previous: Tensor | None = None

    @property
    def unambiguous(self) -> Tensor:
        """[R] True if the prompt is unambiguous: a box, or more than one point."""
        boxed = (self.labels == BOX_START).any(1)
        return boxed | ((self.labels == 0) | (self.labels == FOREGROUND)).sum(1).gt(1)


def first_prompts(batch: Batch) -> Prompts:
    """First prompts: two fifths of the objects get a point and the others a box, so that every other row has both
    kinds."""
    count, objects = batch.points.shape[:2]
    boxed = (torch.arange(objects) >= 0.4 * objects).repeat(count)
    points = batch.points.flatten(0, 1)
    with_padding = torch.stack([points, torch.zeros_like(points)], dim=1)
    corners = batch.boxes.flatten(0, 1).reshape(-1, 2, 2)
    return Prompts(
        coords=torch.where(boxed[:, None, None], corners, with_padding),
        labels=torch.where(boxed[:, None], torch.tensor([BOX_START, BOX_END]), torch.tensor([FOREGROUND, PADDING])),
        image=torch.arange(count).repeat_interleave(objects),
        target=batch.targets.flatten(0, 1),
    )


def error_points(logits: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose one point per row where mask and target [R, H, W] differ: coords [R, 2] in input pixels, labels [R].

    If they agree everywhere, choose a point on the object.
    """
    inside = target > 0.5
    wrong = ((logits > 0) != inside).flatten(1)
    certain = target.flatten(1) >= target.flatten(1).amax(dim=1, keepdim=True)
    places = torch.where(wrong.any(dim=1, keepdim=True), wrong, certain)
    cell = torch.multinomial(places.float(), 1, generator=generator).squeeze(1)
    # A half covered cell counts as outside, but an object that consists only of such cells is still there.
    labels = torch.where(wrong.any(dim=1), inside.flatten(1).gather(1, cell[:, None]).squeeze(1), True)
    corner = torch.stack([cell % target.shape[2], cell // target.shape[2]], dim=1)
    return (corner + torch.rand(corner.shape, generator=generator)) * CELL, labels.long()


def next_prompts(prompts: Prompts, logits: Tensor, generator: torch.Generator) -> Prompts:
    """Repeat every other row with a point in the error region of its logits [R, S/4, S/4], and the logits as mask
    input."""
    logits = logits[::2]
    coords, labels = error_points(logits, prompts.target[::2], generator)
    return Prompts(
        coords=torch.cat([prompts.coords[::2], coords.unsqueeze(1)], dim=1),
        labels=torch.cat([prompts.labels[::2], labels.unsqueeze(1)], dim=1),
        image=prompts.image[::2],
        target=prompts.target[::2],
        previous=logits,
    )
