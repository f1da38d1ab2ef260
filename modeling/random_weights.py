"""Random weights for trying out a real architecture without a checkpoint.

transformers' own initialisation of SAM is of no use for that: its encoder starts at a standard deviation of 1e-10, so
that every image gets the same embedding (and denormal numbers make it crawl), and the relative positions start at zero.
"""

import math

import torch
from torch import Tensor, nn
from transformers import SamModel

from modeling.architectures import empty_model

# Of relative position tables and other bare parameters: large enough that leaving them out changes the result.
POSITION_STD = 0.2
NORM_STD = 0.1
BIAS_STD = 0.1
# Random mask logits would stay near 0, where rounding decides; SAM's spread over some ten units.
MASK_GAIN = 4.0


def random_model(name: str, seed: int) -> SamModel:
    """A model whose weights are random, the same for the same seed.

    Args:
        name: one of `architectures.MODEL_NAMES`.
        seed: of the random generator.
    """
    model = empty_model(name)
    model.to_empty(device="cpu")
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    randomise(model, seed)
    return model


def randomise(model: SamModel, seed: int) -> None:
    """Give a model random weights, in place, lively enough that masks follow image and prompt."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            _fill(module, generator)
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.get_parameter("proj_out.weight").mul_(MASK_GAIN)


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
