"""The models to measure: Meta's ViTs with random weights, and a small one for CPUs."""

from typing import Any, NamedTuple

import torch
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from modeling.architectures import vit_config
from modeling.random_weights import randomise

TINY = "tiny"


class VitShapes(NamedTuple):
    """Sizes of a ViT: side of the input in pixels, side of the grid in cells, and sizes of the blocks."""

    image_size: int
    grid: int
    hidden: int
    mlp: int
    heads: int
    window: int
    layers: int
    global_layers: tuple[int, ...]

    @property
    def head_width(self) -> int:
        """Number of channels of one head."""
        return self.hidden // self.heads

    @property
    def tokens(self) -> int:
        """Number of cells of one image."""
        return self.grid**2

    @property
    def padded_tokens(self) -> int:
        """Number of cells of one image after its windows are padded (ViT-H: 4,900 instead of 4,096)."""
        return (-(-self.grid // self.window) * self.window) ** 2


def kit_config(name: str) -> SamConfig:
    """Create the configuration of a model. `tiny` has the bundled model's input size and decoder, and a ViT of two
    blocks whose windows do not tile the grid, so that it exercises the same code as ViT-H."""
    if name != TINY:
        return vit_config(name)
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=80, num_hidden_layers=2, num_attention_heads=1, global_attn_indexes=[1], image_size=448,
            window_size=12,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(image_size=448, patch_size=16),
        mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=1e-6),
    )  # fmt: skip


def shapes_of(name: str) -> VitShapes:
    """Return the sizes of a model's encoder."""
    vision: Any = kit_config(name).vision_config
    return VitShapes(
        vision.image_size,
        vision.image_size // vision.patch_size,
        vision.hidden_size,
        vision.mlp_dim,
        vision.num_attention_heads,
        vision.window_size,
        vision.num_hidden_layers,
        tuple(vision.global_attn_indexes),
    )


def kit_model(name: str, seed: int, device: str) -> SamModel:
    """Create a model in float32 with random weights, generated on the device."""
    with torch.device("meta"):
        model = SamModel(kit_config(name))
    model.to_empty(device=device)
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    model.train(False).requires_grad_(False)
    randomise(model, seed)
    return model
