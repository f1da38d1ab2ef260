"""The small bundled model: a convolutional image encoder under SAM's own prompt encoder and mask decoder."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig
from transformers.models.sam.configuration_sam import SamVisionConfig as VisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPositionalEmbedding, SamPromptEncoder

from modeling.efficientnet_lite import TRUNK_CHANNELS, EfficientNetLite0

PATCH_SIZE = 16
IMAGE_SIZE = 224
"""Side of the input that the bundled weights do best with; they were trained on smaller pictures."""
EMBEDDING_CHANNELS = 256
ATTENTION_CHANNELS, ATTENTION_BLOCKS = 256, 2


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normalised.permute(0, 3, 1, 2)


class AttentionBlock(nn.Module):
    """Global self-attention and an MLP over the pixels of [B, C, H, W]."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        # A depthwise convolution tells the tokens where they stand, at any resolution.
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.mlp_norm = nn.LayerNorm(channels)
        last_linear = nn.Linear(4 * channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), last_linear)
        # The block starts as the identity: its positions and contexts come in as they prove useful.
        for last in (self.position, self.projection, last_linear):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(x)
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.attention_norm(tokens)).reshape(batch, -1, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, -1, channels)
        tokens = tokens + self.projection(attended)
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class TinyImageEncoder(nn.Module):
    """EfficientNet-Lite0's trunk, attention at stride 32, merged to SAM's embedding at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        self.reduce32 = nn.Conv2d(TRUNK_CHANNELS[32], ATTENTION_CHANNELS, 1)
        self.stride32 = nn.Sequential(*(AttentionBlock(ATTENTION_CHANNELS) for _ in range(ATTENTION_BLOCKS)))
        # Kernel equals stride: every fine position keeps channels of its own in the coarse cell,
        # which the decoder's transposed convolutions can put back where they came from.
        self.from4 = _lateral(TRUNK_CHANNELS[4], 4)
        self.from8 = _lateral(TRUNK_CHANNELS[8], 2)
        self.from16 = _lateral(TRUNK_CHANNELS[16], 1)
        # Normalised each, or the constant and positional part of the coarsest drowns what the others see.
        self.from32 = _lateral(ATTENTION_CHANNELS, 1)
        self.merge_norm = LayerNorm2d(EMBEDDING_CHANNELS)
        self.merge = nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3, padding=1, bias=False)
        self.from_place = nn.Conv2d(5, EMBEDDING_CHANNELS, 1, bias=False)
        self.norm = LayerNorm2d(EMBEDDING_CHANNELS)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised, zero-padded pixels [B, 3, S, S] (S a multiple of 32) -> embeddings [B, 256, S/16, S/16]."""
        x4, x8, x16, x32 = self.trunk(pixel_values)
        wide = F.interpolate(self.from32(self.stride32(self.reduce32(x32))), scale_factor=2.0, mode="nearest")
        merged = self.merge_norm(self.from4(x4) + self.from8(x8) + self.from16(x16) + wide)
        embeddings: Tensor = self.norm(merged + self.merge(F.relu(merged)) + self.from_place(_places(merged)))
        return embeddings


def _lateral(channels: int, size: int) -> nn.Sequential:
    """Blocks of size x size positions -> one cell of the embedding, normalised."""
    return nn.Sequential(
        nn.Conv2d(channels, EMBEDDING_CHANNELS, size, size, bias=False), nn.BatchNorm2d(EMBEDDING_CHANNELS)
    )


def _places(grid: Tensor) -> Tensor:
    """x, y, x², y² and xy of the cells of [B, C, H, W], each in [-1, 1]: [1, 5, H, W].

    With the squares a distance to any point is a dot product, which is all that the decoder's last step computes.
    """
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, grid.shape[2], device=grid.device, dtype=grid.dtype),
        torch.linspace(-1, 1, grid.shape[3], device=grid.device, dtype=grid.dtype),
        indexing="ij",
    )
    return torch.stack([x, y, x * x, y * y, x * y]).unsqueeze(0)


class TinySam(nn.Module):
    """A SAM whose image encoder is TinyImageEncoder; the weights fit every image_size."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        self.config = SamConfig(
            vision_config=VisionConfig(
                image_size=image_size,
                patch_size=PATCH_SIZE,
                num_pos_feats=EMBEDDING_CHANNELS // 2,
                output_channels=EMBEDDING_CHANNELS,
            ),
            prompt_encoder_config=SamPromptEncoderConfig(image_size=image_size, patch_size=PATCH_SIZE),
            mask_decoder_config=SamMaskDecoderConfig(),
        )
        decoder_config: Any = self.config.mask_decoder_config
        self.vision_encoder = TinyImageEncoder()
        self.shared_image_embedding = SamPositionalEmbedding(self.config.vision_config)
        self.prompt_encoder = SamPromptEncoder(self.config)
        self.mask_decoder = SamMaskDecoder(decoder_config)
        self.prompt_encoder.shared_embedding = self.shared_image_embedding
        # Fixed random frequencies of standard deviation 1, as in Meta's SAM; transformers scales them by its width.
        nn.init.normal_(self.shared_image_embedding.positional_embedding, std=1.0)
        self.shared_image_embedding.requires_grad_(False)
        begin_as_likeness(self.mask_decoder)
        self.set_image_size(image_size)

    def set_image_size(self, image_size: int) -> None:
        """Lets the same weights work on another input size; training begins small."""
        if image_size % (2 * PATCH_SIZE):
            raise ValueError(f"image_size must be a multiple of {2 * PATCH_SIZE}, not {image_size}")
        self.image_size = image_size
        self.embedding_size = image_size // PATCH_SIZE
        self.low_res_size = 4 * self.embedding_size
        self.prompt_encoder.input_image_size = image_size
        self.prompt_encoder.image_embedding_size = (self.embedding_size, self.embedding_size)

    def image_positional_embeddings(self) -> Tensor:
        """The dense positional encoding of the embedding grid, [1, 256, S/16, S/16]."""
        size = self.embedding_size
        weight = self.shared_image_embedding.positional_embedding
        steps = (torch.arange(size, device=weight.device, dtype=weight.dtype) + 0.5) / size
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
        encoded: Tensor = self.shared_image_embedding(grid)
        return encoded.permute(2, 0, 1).unsqueeze(0)


LOCAL_LOGIT = 6.0
"""Attention logit of two equal positional encodings at the start of training, in each head."""


def begin_as_likeness(decoder: SamMaskDecoder) -> None:
    """Begin the decoder as one that answers "what is like the embedding at the prompt"; training goes on from there.

    - Keys are projected as queries are, so that places attend to what is near them: the inner product of two Fourier
      encodings falls with the distance of their places. From random projections that has to be learnt first, and a
      short training never gets over it: after 200 steps the best mask's IoU was 0.05 without this (and still after
      400) and 0.22 with it, at a learning rate of 1e-3 and 5e-4.
    - Values are copied: what a token attends to is added to it, up to the bottleneck of the projection. The output
      tokens start small, so that in the first layer all of them take up the prompt's place and look there.
    - The tokens begin by leaving the image as it is.
    """
    transformer: Any = decoder.transformer
    copying: list[Any] = [transformer.final_attn_token_to_image]
    attentions: list[Any] = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        copying += [layer.self_attn, layer.cross_attn_token_to_image]
        attentions += [layer.self_attn, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
        for parameter in layer.cross_attn_image_to_token.out_proj.parameters():
            nn.init.zeros_(parameter)
    for attention in attentions:
        query, key, heads = attention.q_proj, attention.k_proj, attention.num_attention_heads
        head_width = query.out_features // heads
        # A Fourier encoding of C values has the squared norm C / 2; an orthogonal projection spreads it over the heads.
        squared_norm = query.in_features / 2 * head_width / query.in_features
        nn.init.orthogonal_(query.weight, gain=math.sqrt(LOCAL_LOGIT * math.sqrt(head_width) / squared_norm))
        with torch.no_grad():
            key.weight.copy_(query.weight)
        nn.init.zeros_(query.bias)
        nn.init.zeros_(key.bias)
    for attention in copying:
        nn.init.orthogonal_(attention.v_proj.weight)
        with torch.no_grad():
            attention.out_proj.weight.copy_(attention.v_proj.weight.T)
        nn.init.zeros_(attention.v_proj.bias)
        nn.init.zeros_(attention.out_proj.bias)
    for tokens in (decoder.iou_token, decoder.mask_tokens):
        nn.init.normal_(tokens.weight, std=0.1)


def load_tiny(path: str | Path, image_size: int = IMAGE_SIZE) -> TinySam:
    """The model with the weights of a safetensors file, in evaluation mode; a missing or unknown key is an error."""
    model = TinySam(image_size)
    weights = load_file(path)
    # One parameter with two names: the file holds it once.
    weights["prompt_encoder.shared_embedding.positional_embedding"] = weights[
        "shared_image_embedding.positional_embedding"
    ]
    model.load_state_dict(weights, strict=True)
    return model.eval()
