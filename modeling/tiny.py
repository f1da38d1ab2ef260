"""The bundled model: MobileSAM's parts, an image encoder of 6 million parameters with SAM's own decoder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPositionalEmbedding, SamPromptEncoder

from modeling.tiny_vit import EMBEDDING_CHANNELS, TinyViT

PATCH_SIZE = 16
IMAGE_SIZE = 448
"""Input size of the bundled model. Windows of 7 and 14 cells tile it; at 1024 the encoder costs eight times as much."""
MOBILE_SAM_SIZE = 1024
"""Input size that MobileSAM was trained on."""
MASK_DECODER_NORM_EPS = 1e-5
"""nn.LayerNorm's default, as in Meta's two-way transformer; transformers' default configuration has 1e-6."""


class TinySam(nn.Module):
    """A SAM whose image encoder is TinyViT; the weights fit every image_size."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        if image_size % PATCH_SIZE:
            raise ValueError(f"image_size must be a multiple of {PATCH_SIZE}, not {image_size}")
        decoder_config = SamMaskDecoderConfig(layer_norm_eps=MASK_DECODER_NORM_EPS)
        self.config = SamConfig(
            vision_config=SamVisionConfig(
                image_size=image_size,
                patch_size=PATCH_SIZE,
                num_pos_feats=EMBEDDING_CHANNELS // 2,
                output_channels=EMBEDDING_CHANNELS,
            ),
            prompt_encoder_config=SamPromptEncoderConfig(image_size=image_size, patch_size=PATCH_SIZE),
            mask_decoder_config=decoder_config,
        )
        self.vision_encoder = TinyViT()
        self.shared_image_embedding = SamPositionalEmbedding(self.config.vision_config)
        self.prompt_encoder = SamPromptEncoder(self.config)
        self.mask_decoder = SamMaskDecoder(decoder_config)
        self.prompt_encoder.shared_embedding = self.shared_image_embedding
        # Fixed random frequencies with standard deviation 1, as in Meta's SAM; transformers scales them by its width.
        nn.init.normal_(self.shared_image_embedding.positional_embedding, std=1.0)
        self.shared_image_embedding.requires_grad_(False)
        self.image_size = image_size
        self.embedding_size = image_size // PATCH_SIZE
        self.low_res_size = 4 * self.embedding_size

    def image_positional_embeddings(self) -> Tensor:
        """The dense positional encoding of the embedding grid, [1, 256, S/16, S/16]."""
        size = self.embedding_size
        weight = self.shared_image_embedding.positional_embedding
        steps = (torch.arange(size, device=weight.device, dtype=weight.dtype) + 0.5) / size
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
        encoded: Tensor = self.shared_image_embedding(grid)
        return encoded.permute(2, 0, 1).unsqueeze(0)


def load_tiny(path: str | Path, image_size: int = IMAGE_SIZE) -> TinySam:
    """Load the weights of a safetensors file, in evaluation mode. A missing or unknown key is an error."""
    return tiny_of(load_file(path), image_size)


def tiny_of(weights: Mapping[str, Tensor], image_size: int = IMAGE_SIZE) -> TinySam:
    """Create the model with these weights, in evaluation mode. A missing or unknown key is an error."""
    model = TinySam(image_size)
    # One parameter with two names; files contain it once.
    positions = weights["shared_image_embedding.positional_embedding"]
    model.load_state_dict({**weights, "prompt_encoder.shared_embedding.positional_embedding": positions}, strict=True)
    return model.eval()
