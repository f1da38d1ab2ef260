"""TinyViT as MobileSAM's image encoder: convolutions at stride 4, then attention in windows at strides 8 and 16.

Wu et al., 2022 (https://arxiv.org/abs/2207.10666), the variant of 5 million parameters. MobileSAM (Zhang et al., 2023,
https://arxiv.org/abs/2306.14289) keeps its last stage at stride 16 and puts SAM's neck behind it. Submodules have the
names that MobileSAM's checkpoint gives to their weights.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionNeck

STEM_CHANNELS = 64
CONVOLUTION_BLOCKS = 2
EXPANSION = 4
WINDOW_STAGES = (
    # channels, blocks, heads, side of a window
    (128, 2, 4, 7),
    (160, 6, 5, 14),
    (320, 2, 10, 7),
)
EMBEDDING_CHANNELS = 256


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch normalisation, which an exporter folds into it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(c=convolution, bn=nn.BatchNorm2d(outputs)))


class PatchEmbed(nn.Module):
    """Normalised pixels [B, 3, S, S] -> [B, 64, S/4, S/4]."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        self.seq = nn.Sequential(ConvNorm(3, half, 3, stride=2), nn.GELU(), ConvNorm(half, STEM_CHANNELS, 3, stride=2))

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches: Tensor = self.seq(pixel_values)
        return patches


class Bottleneck(nn.Module):
    """Mix the channels, filter each alone, mix them again: [B, C, H, W] -> [B, C', H / stride, W / stride]."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, hidden, 1)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return mixed


class ConvolutionBlock(Bottleneck):
    """MobileNet's inverted residual, activated at its end: [B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + super().forward(x))


class WindowAttention(nn.Module):
    """Attention among the tokens of a window. Every head has a bias for each distance along y and along x."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.window = window
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, tokens: Tensor) -> Tensor:
        """[windows, window², C], row by row -> the same shape."""
        windows, count, channels = tokens.shape
        # Query, key and value of a head are adjacent.
        qkv = self.qkv(self.norm(tokens)).reshape(windows, count, self.heads, 3, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=self._biases())
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(windows, count, channels))
        return projected

    def _biases(self) -> Tensor:
        """The biases of all pairs of a window's tokens: [heads, window², window²].

        Looked up along y, then along x: a table of all pairs in the exported graph would be larger than the weights.
        """
        steps = torch.arange(self.window, device=self.attention_biases.device)
        distances = (steps[:, None] - steps).abs()
        biases = self.attention_biases.unflatten(1, (self.window, self.window))[:, distances][..., distances]
        return biases.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Mlp(nn.Module):
    """[..., C] -> [..., C], normalised first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, EXPANSION * channels)
        self.fc2 = nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return mixed


class WindowBlock(nn.Module):
    """Attention within windows, a convolution across their borders, an MLP: [B, C, H, W] -> the same shape."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_conv(x + self._attend(x))
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        side = self.window
        # The zeros that pad the last windows take part in attention, as they did when the published weights were
        # trained.
        filled = F.pad(x, (0, -width % side, 0, -height % side)).permute(0, 2, 3, 1)
        rows, columns = -(-height // side), -(-width // side)
        windows = filled.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended: Tensor = self.attn(windows.reshape(batch * rows * columns, side * side, channels))
        attended = attended.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        attended = attended.reshape(batch, rows * side, columns * side, channels)
        return attended[:, :height, :width].permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one resolution, and the projection to the next stage's channels."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.downsample(self.blocks(x))
        return merged


class TinyViT(nn.Module):
    """Normalised, zero-padded pixels [B, 3, S, S] -> embeddings [B, 256, S/16, S/16].

    Any S that is a multiple of 16; multiples of 224 fill all windows without padding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        stages: list[list[nn.Module]] = [[ConvolutionBlock(STEM_CHANNELS) for _ in range(CONVOLUTION_BLOCKS)]]
        stages += [
            [WindowBlock(channels, heads, window) for _ in range(blocks)]
            for channels, blocks, heads, window in WINDOW_STAGES
        ]
        widths = [STEM_CHANNELS, *(channels for channels, *_ in WINDOW_STAGES)]
        # MobileSAM's last downsampling has no stride.
        downsamples: list[nn.Module] = [
            Bottleneck(here, following, following, stride)
            for here, following, stride in zip(widths, widths[1:], (2, 2, 1), strict=False)
        ]
        self.layers = nn.Sequential(
            *(Stage(blocks, step) for blocks, step in zip(stages, [*downsamples, nn.Identity()], strict=True))
        )
        neck_config = SamVisionConfig(hidden_size=widths[-1], output_channels=EMBEDDING_CHANNELS)
        self.neck: Any = SamVisionNeck(neck_config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.layers(self.patch_embed(pixel_values))
        embeddings: Tensor = self.neck(features.permute(0, 2, 3, 1))
        return embeddings
