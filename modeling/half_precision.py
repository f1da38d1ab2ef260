"""A model in half precision, with islands of single precision where half would overflow or lose what counts.

TensorRT takes a graph's types as they are (strongly typed networks), so they are decided here. Half precision ends at
65504 and keeps 11 bits. Matrix products and convolutions bear that, since hardware sums them in single precision and
rounds the sum. The statistics of layer norms do not: in SAM's neck their squares overflow (docs/precision.md).
"""

import copy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers.models.sam.modeling_sam import SamPositionalEmbedding

Module = TypeVar("Module", bound=nn.Module)

# Positions: half precision has no number between 1023 and 1023.5, and the frequencies multiply what rounding leaves.
ISLANDS: tuple[type[nn.Module], ...] = (nn.LayerNorm, SamPositionalEmbedding)


def halved(module: Module, islands: tuple[type[nn.Module], ...] = ISLANDS) -> Module:
    """A copy that computes in half precision but for its islands, which take and return half precision too.

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
    # deepcopy takes what its memo holds for the copy: no weight is copied at full width first.
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
