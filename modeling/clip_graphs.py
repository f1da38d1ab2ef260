"""CLIP's two encoders as served. Inputs need no preprocessing and outputs no postprocessing.

    clip_image_encoder: image uint8 [B, 3, S, S] -> image_embeds float32 [B, D]
    clip_text_encoder: input_ids int32 [B, L] -> text_embeds float32 [B, D]

Embeddings have length 1, so that their inner products are CLIP's similarities.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPModel


class ClipImageGraph(nn.Module):
    """The image encoder with its normalisation.

    Args:
        image_mean: of R, G and B, in [0, 1].
        image_std: likewise.
    """

    def __init__(self, model: CLIPModel, image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = model.visual_projection
        self.register_buffer("scale", 1 / (255 * torch.tensor(image_std).reshape(3, 1, 1)))
        self.register_buffer("shift", -(torch.tensor(image_mean) / torch.tensor(image_std)).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Embed RGB crops."""
        pixel_values = image.to(torch.float32) * self.get_buffer("scale") + self.get_buffer("shift")
        pooled = self.vision_model(pixel_values=pixel_values).pooler_output
        return _unit(self.visual_projection(pooled))


class ClipTextGraph(nn.Module):
    """The text encoder. Rows end with the end-of-text token and are padded with it. Attention is causal, so the padding
    has no effect.
    """

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed token ids."""
        pooled = self.text_model(input_ids=input_ids.to(torch.int64)).pooler_output
        return _unit(self.text_projection(pooled))


def _unit(embeds: Tensor) -> Tensor:
    return embeds / embeds.norm(dim=-1, keepdim=True)
