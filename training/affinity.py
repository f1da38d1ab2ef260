"""A second, direct task for the image encoder: tell which places belong with a given one.

Learning through the decoder alone, the encoder gives out positions, which are the easier part of the answer, and hardly
anything of what the image shows. Here nearness is given for free, so what is left to learn is likeness. The head is
used in training only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.tiny import EMBEDDING_CHANNELS, PATCH_SIZE
from training.dataset import CELL, Batch
from training.losses import dice

WIDTH = 64


class AffinityHead(nn.Module):
    """Likeness of every embedded place to the place under a point."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(EMBEDDING_CHANNELS, WIDTH, 1)
        self.scale = nn.Parameter(torch.tensor(6.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.nearness = nn.Parameter(torch.tensor(5.0))

    def forward(self, embeddings: Tensor, points: Tensor, shown: Tensor) -> Tensor:
        """Logits [B, K, S/16, S/16] for embeddings [B, 256, S/16, S/16] and points [B, K, 2] in input pixels.

        `shown` [B, 1, S/16, S/16] is one where there is image and zero in the padding.
        """
        features = self.project(embeddings)
        # Without what all places of an image share, two places are unlike from the first step on. The padding does not
        # count: its contrast to the image would hide all others.
        area = shown.sum(dim=(2, 3), keepdim=True)
        features = features - (features * shown).sum(dim=(2, 3), keepdim=True) / area
        spread = ((features * shown).square().sum(dim=(2, 3), keepdim=True) / area + 1e-5).sqrt()
        features = F.normalize(features / spread, dim=1)
        side = features.shape[-1]
        cells = (points / PATCH_SIZE).long().clamp(0, side - 1)
        index = (cells[..., 1] * side + cells[..., 0]).unsqueeze(1).expand(-1, WIDTH, -1)
        likeness = torch.einsum("bck,bchw->bkhw", features.flatten(2).gather(2, index), features)
        steps = torch.arange(side)
        far_x = (steps - cells[..., 0:1]).square().unsqueeze(-2)
        far_y = (steps - cells[..., 1:2]).square().unsqueeze(-1)
        distance = (far_x + far_y).sqrt() / side
        return likeness * self.scale - distance * self.nearness + self.offset

    def loss(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """How badly the likeness tells each object from the rest of its image: cross entropy and dice."""
        shown = F.max_pool2d(batch.pixel_values.abs().amax(dim=1, keepdim=True), PATCH_SIZE).gt(0).float()
        logits = self(embeddings, batch.points, shown)
        targets = F.avg_pool2d(batch.targets, PATCH_SIZE // CELL)
        entropy = F.binary_cross_entropy_with_logits(logits, targets, weight=shown.expand_as(logits)) / shown.mean()
        return entropy + dice(logits.where(shown.bool(), -9.0), targets).mean()
