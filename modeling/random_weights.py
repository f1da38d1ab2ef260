"""Random weights for trying a real architecture without a checkpoint.

transformers' own initialisation of SAM does not work for this: its encoder starts with a standard deviation of 1e-10,
so that every image gets the same embedding (and denormal numbers slow it down), and relative positions start at
zero.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from modeling.architectures import empty_model

# For relative position tables and other bare parameters: large enough that omitting them changes the result.
POSITION_STD = 0.2
NORM_STD = 0.1
BIAS_STD = 0.1
# Trained ViTs have a few channels that are far larger than the others, from an early layer to the last ("Massive
# Activations in Large Language Models", Sun et al. 2024, section on ViTs). This size raises the output of the neck's
# first convolution to some hundreds, whose squares exceed half precision, as reported for SAM's ViT-H
# (segment-anything#540, #696). Meta's weights were not available to measure them.
OUTLIER_CHANNELS = 4
OUTLIER_SIZE = 6000.0
OUTLIER_VARIATION = 0.2

# Random mask logits would stay near 0, where rounding changes signs; SAM's spread over some ten units.
MASK_GAIN = 4.0


def random_model(name: str, seed: int, device: str = "cpu") -> SamModel:
    """Create a model with random weights, which are the same for the same seed and type of device.

    Args:
        name: one of `model_names.MODEL_NAMES`.
        seed: of the random generator.
        device: where the weights are drawn and stay. A GPU draws those of ViT-H in a second, a processor in half a
            minute.
    """
    model = empty_model(name)
    model.to_empty(device=device)
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    randomise(model, seed)
    return model


def randomise(model: SamModel, seed: int) -> None:
    """Give a model random weights, in place, such that masks depend on image and prompt."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            _fill(module, generator)
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.get_parameter("proj_out.weight").mul_(MASK_GAIN)


def grow_outliers(encoder: SamVisionEncoder) -> None:
    """Give a ViT's activations outliers like a trained one's, in place: `OUTLIER_CHANNELS` become some thousand times
    larger.

    They start in the MLP after the first quarter of the layers, vary with image and position, and persist to the end.
    They come in pairs of opposite sign, so that the mean over channels does not change. The following norms are
    adapted, as training would adapt them, so that all channels still matter.
    """
    layers: Any = encoder.layers
    first = len(layers) // 4
    channels, positive, negative = slice(OUTLIER_CHANNELS), *(slice(start, OUTLIER_CHANNELS, 2) for start in (0, 1))
    width = layers[0].layer_norm1.weight.numel()
    with torch.no_grad():
        for parameter in layers[first].mlp.lin2.parameters():
            parameter[positive] *= OUTLIER_SIZE * OUTLIER_VARIATION
        layers[first].mlp.lin2.bias[positive] += OUTLIER_SIZE
        for parameter in layers[first].mlp.lin2.parameters():
            parameter[negative] = -parameter[positive]
        for index, layer in enumerate(layers[first + 1 :], first + 1):
            # The outliers' contribution to the standard deviation, relative to the other channels at that layer,
            # because each layer adds to their variance.
            gain = OUTLIER_SIZE * math.sqrt(OUTLIER_CHANNELS / width) / math.sqrt(3 + index)
            for norm in (layer.layer_norm1, layer.layer_norm2):
                norm.weight *= gain
                norm.weight[channels] /= OUTLIER_SIZE


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the module's own parameters and buffers, except those of its children."""

    def normal(tensor: Tensor, mean: float, std: float) -> None:
        tensor.normal_(mean, std, generator=generator)

    if isinstance(module, nn.BatchNorm2d):
        module.reset_running_stats()
    match module:
        case nn.LayerNorm() | nn.BatchNorm2d():
            normal(module.weight, 1.0, NORM_STD)
            normal(module.bias, 0.0, NORM_STD)
        case nn.Linear() | nn.Conv2d() | nn.ConvTranspose2d():
            transposed = isinstance(module, nn.ConvTranspose2d)
            fan_in = module.weight.shape[0] if transposed else module.weight[0].numel()
            normal(module.weight, 0.0, 1.0 / math.sqrt(fan_in))
            if module.bias is not None:
                normal(module.bias, 0.0, BIAS_STD)
        case nn.Embedding():
            normal(module.weight, 0.0, 1.0)
        case _:
            for name, parameter in module.named_parameters(recurse=False):
                # SAM draws the frequencies of its positional encoding with a standard deviation of 1.
                normal(parameter, 0.0, 1.0 if name == "positional_embedding" else POSITION_STD)
