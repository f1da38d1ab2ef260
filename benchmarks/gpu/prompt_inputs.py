"""Inputs of the decoder: random embeddings and clicks."""

import torch
from torch import Tensor

from modeling.architectures import ModelSizes
from modeling.prompts import NOT_A_POINT


@torch.inference_mode()
def decoder_inputs(sizes: ModelSizes, batch: int, prompts: int, device: str) -> tuple[Tensor, ...]:
    """Create random embeddings and one click per prompt, padded as in SAM to two tokens, without a mask input."""
    side, low_res, grid = sizes.image_size, sizes.low_res_size, sizes.grid_size
    labels = torch.tensor([1, NOT_A_POINT], dtype=torch.int32, device=device)
    return (
        torch.randn(batch, sizes.channels, grid, grid, device=device).half(),
        torch.rand(batch, prompts, 2, 2, device=device) * side,
        labels.expand(batch, prompts, 2).contiguous(),
        torch.zeros(batch, prompts, low_res, low_res, device=device),
        torch.zeros(batch, prompts, device=device),
    )
