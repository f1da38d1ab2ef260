"""Random weights for trying out a real architecture without a checkpoint.

transformers' own initialisation of SAM is of no use for that: its encoder starts at a standard deviation of 1e-10, so
that every image gets the same embedding (and denormal numbers make it crawl), and the relative positions start at zero.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from modeling.architectures import empty_model

# Of relative position tables and other bare parameters: large enough that leaving them out changes the result.
POSITION_STD = 0.2
NORM_STD = 0.1
BIAS_STD = 0.1
# Trained ViTs carry a few channels far larger than the others from an early layer to the last ("Massive Activations in
# Large Language Models", Sun et al. 2024, section on ViTs). This size takes the neck's first convolution to the some
# hundreds whose squares half precision does not hold, as reported of SAM's ViT-H (segment-anything#540, #696); Meta's
# weights were not at hand to measure theirs.
OUTLIER_CHANNELS = 4
OUTLIER_SIZE = 6000.0
OUTLIER_VARIATION = 0.2

# Random mask logits would stay near 0, where rounding decides; SAM's spread over some ten units.
MASK_GAIN = 4.0


def random_model(name: str, seed: int, device: str = "cpu") -> SamModel:
    """A model whose weights are random, the same for the same seed and kind of device.

    Args:
        name: one of `architectures.MODEL_NAMES`.
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
    """Give a model random weights, in place, lively enough that masks follow image and prompt."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            _fill(module, generator)
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.get_parameter("proj_out.weight").mul_(MASK_GAIN)


def grow_outliers(encoder: SamVisionEncoder) -> None:
    """Make a ViT's activations as uneven as a trained one's, in place: `OUTLIER_CHANNELS` some thousand times larger.

    They begin in the MLP of the layer after the first quarter, vary with image and place, and stay to the end. They
    come in pairs of opposite sign, so that the mean over channels stays where it was, and the norms after them are
    adapted as training adapts them, so that all channels go on to count.
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
            # What the outliers add to the standard deviation, over what the other channels have by then, since each
            # layer adds to their variance.
            gain = OUTLIER_SIZE * math.sqrt(OUTLIER_CHANNELS / width) / math.sqrt(3 + index)
            for norm in (layer.layer_norm1, layer.layer_norm2):
                norm.weight *= gain
                norm.weight[channels] /= OUTLIER_SIZE


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the module's own parameters and buffers, those of its children excepted."""

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
