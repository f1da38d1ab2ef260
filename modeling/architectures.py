"""The models that can be exported: Meta's three sizes of SAM, MobileSAM, and the bundled model.

All of them are handled as transformers' `SamModel`. MobileSAM and the bundled model have a different image encoder and
SAM's other parts, so they become a `SamModel` by replacing the encoder (`as_sam_model`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPositionalEmbedding, SamPromptEncoder

from modeling.model_names import BUNDLED
from modeling.tiny import IMAGE_SIZE, MASK_DECODER_NORM_EPS, MOBILE_SAM_SIZE, TinySam


class VitSize(NamedTuple):
    """The parameters in which Meta's image encoders differ (segment_anything/build_sam.py)."""

    hidden_size: int
    layers: int
    heads: int
    global_layers: tuple[int, ...]


VIT_SIZES: Mapping[str, VitSize] = MappingProxyType(
    {
        "vit_b": VitSize(768, 12, 12, (2, 5, 8, 11)),
        "vit_l": VitSize(1024, 24, 16, (5, 11, 17, 23)),
        "vit_h": VitSize(1280, 32, 16, (7, 15, 23, 31)),
    }
)
TINY_VIT_SIDES: Mapping[str, int] = MappingProxyType({"vit_t": MOBILE_SAM_SIZE, BUNDLED: IMAGE_SIZE})
"""Input sizes of the models whose image encoder is TinyViT: MobileSAM as published, and the bundled model."""


class SamParts(Protocol):
    """The four parts of a SAM, under the names of transformers' `SamModel`."""

    @property
    def vision_encoder(self) -> nn.Module: ...

    @property
    def shared_image_embedding(self) -> SamPositionalEmbedding: ...

    @property
    def prompt_encoder(self) -> SamPromptEncoder: ...

    @property
    def mask_decoder(self) -> SamMaskDecoder: ...


class ModelSizes(NamedTuple):
    """The sizes of a model's tensors.

    Attributes:
        image_size: side of the square input frame, in pixels (SAM: 1024).
        channels: channels of an image embedding (SAM: 256).
        grid_size: side of an image embedding, in cells (SAM: 64).
        low_res_size: side of the low-resolution mask logits (SAM: 256).
    """

    image_size: int
    channels: int
    grid_size: int
    low_res_size: int


def vit_config(name: str) -> SamConfig:
    """Create the configuration of one of Meta's models, with the values of Meta's own code."""
    size = VIT_SIZES[name]
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=size.hidden_size,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            global_attn_indexes=list(size.global_layers),
        ),
        prompt_encoder_config=SamPromptEncoderConfig(),
        mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=MASK_DECODER_NORM_EPS),
    )


def empty_model(name: str) -> SamModel:
    """Create a model on the "meta" device: weights have names and shapes but no memory.

    Raises:
        KeyError: there is no such model.
    """
    with torch.device("meta"):
        side = TINY_VIT_SIDES.get(name)
        model = SamModel(vit_config(name)) if side is None else as_sam_model(TinySam(side))
    model.train(False)
    return model


def as_sam_model(parts: SamParts) -> SamModel:
    """Build a `SamModel` from these parts. The modules are used, not copied.

    Its own image encoder is replaced and may return the embeddings as a tensor: pass images through `embed_pixels`.
    """
    sizes = model_sizes(parts)
    patch_size = sizes.image_size // sizes.grid_size
    config = SamConfig(
        # Only its sizes matter: the encoder that it describes is never used, so it is as small as possible.
        vision_config=SamVisionConfig(
            image_size=sizes.image_size, patch_size=patch_size, hidden_size=12, num_hidden_layers=0
        ),
        prompt_encoder_config=SamPromptEncoderConfig(image_size=sizes.image_size, patch_size=patch_size),
        mask_decoder_config=parts.mask_decoder.config,
    )
    with torch.device("meta"):
        model = SamModel(config)
    model.vision_encoder = parts.vision_encoder  # type: ignore[assignment]
    model.shared_image_embedding = parts.shared_image_embedding
    model.prompt_encoder = parts.prompt_encoder
    model.mask_decoder = parts.mask_decoder
    model.train(False)
    return model


def model_sizes(model: SamParts) -> ModelSizes:
    """Read the sizes of a model's tensors from its prompt encoder."""
    grid_size = int(model.prompt_encoder.image_embedding_size[0])
    return ModelSizes(
        image_size=int(model.prompt_encoder.input_image_size),
        channels=int(model.prompt_encoder.hidden_size),
        grid_size=grid_size,
        # Two transposed convolutions of stride 2 upscale the embedding to the masks.
        low_res_size=4 * grid_size,
    )


def embed_pixels(vision_encoder: nn.Module, pixel_values: Tensor) -> Tensor:
    """Run an image encoder that returns either transformers' output object or a tensor.

    Args:
        vision_encoder: the encoder.
        pixel_values: float32 `[B, 3, S, S]`, normalised.

    Returns:
        float32 `[B, C, G, G]`.
    """
    output = vision_encoder(pixel_values)
    embeddings: Tensor = output if isinstance(output, Tensor) else output.last_hidden_state
    return embeddings
