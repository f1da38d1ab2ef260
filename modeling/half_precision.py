"""Convert a model to half precision, except for modules that would overflow or lose accuracy.

TensorRT uses a graph's types as they are (strongly typed networks), so they are decided here. The largest
half-precision value is 65504, and its significand has 11 bits. That is enough for matrix products and convolutions,
because hardware accumulates in single precision and rounds the sum. It is not enough for the statistics of layer norms:
in SAM's neck their squares overflow (docs/precision.md).
"""

import copy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers.models.sam.modeling_sam import SamPositionalEmbedding

Module = TypeVar("Module", bound=nn.Module)

# Positional encoding: half precision has no value between 1023 and 1023.5, and the frequencies amplify rounding errors.
ISLANDS: tuple[type[nn.Module], ...] = (nn.LayerNorm, SamPositionalEmbedding)


def halved(module: Module, islands: tuple[type[nn.Module], ...] = ISLANDS) -> Module:
    """Copy a module to half precision, except for its islands, which compute in single precision and convert at their
    borders.

    Weights keep their names, but for batch normalisation, which goes into the convolution before it.

    Args:
        module: float32, in evaluation mode; it stays as it is.
        islands: kinds of modules that compute in single precision.
    """
    if any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        module = copy.deepcopy(module)
        _fold_batch_norms(module)
    shores = [part for part in module.modules() if isinstance(part, islands)]
    exact = {id(tensor) for shore in shores for tensor in (*shore.parameters(), *shore.buffers())}
    # deepcopy uses its memo as the copy, so no weight is copied at full width first.
    memo: dict[int, Any] = {
        id(tensor): _converted(tensor, torch.float32 if id(tensor) in exact else torch.float16)
        for tensor in (*module.parameters(), *module.buffers())
    }
    half = copy.deepcopy(module, memo)
    for part in half.modules():
        if isinstance(part, islands):
            part.register_forward_pre_hook(_to_single)
            part.register_forward_hook(_to_half)
    return half


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    copied = tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def _fold_batch_norms(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Sequential):
            for (name, first), (next_name, second) in pairwise(list(part.named_children())):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    setattr(part, name, fuse_conv_bn_eval(first, second))
                    setattr(part, next_name, nn.Identity())


def _to_single(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.to(torch.float32) for tensor in inputs)


def _to_half(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(torch.float16)
