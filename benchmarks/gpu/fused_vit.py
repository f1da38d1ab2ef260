"""The encoder as nine kernels per block: matrix products by cuBLAS, everything between them in the Triton language."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamModel

from benchmarks.gpu.attention_kernels import streamed_attention
from benchmarks.gpu.encoder_kernels import add_norm, patches
from modeling.architectures import model_sizes
from modeling.half_precision import halved
from modeling.pixels import PIXEL_MEAN, PIXEL_STD


class FusedEncoder(nn.Module):
    """`sam_image_encoder` in half precision, inputs and outputs as `ImageEncoderGraph`'s.

    A residual is added where the next norm reads it, so that each row of the hidden states is read and written once
    between two products. The GELU is computed by the product before it, which is cuBLASLt's approximation by tanh.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.encoder: Any = halved(model.vision_encoder)
        self.image_size = model_sizes(model).image_size
        device = model.device
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN, device=device), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD, device=device), persistent=False)

    def forward(self, image: Tensor, input_size: Tensor) -> Tensor:
        """Embed images uint8 `[B, 3, S, S]` of sizes int32 `[B, 2]`: half `[B, C, G, G]`."""
        encoder = self.encoder
        projection = encoder.patch_embed.projection
        rows = patches(image, input_size, self.pixel_mean, self.pixel_std, projection.kernel_size[0])
        hidden = torch.addmm(projection.bias, rows, projection.weight.flatten(1).t())
        channels = hidden.shape[1]
        grid = encoder.pos_embed.shape[1]
        hidden = (hidden.view(-1, grid * grid, channels) + encoder.pos_embed.view(1, -1, channels)).view(-1, channels)
        update: Tensor | None = None
        for layer in encoder.layers:
            hidden, update = _block(layer, hidden, update, grid)
        assert update is not None
        embeddings: Tensor = encoder.neck((hidden + update).view(-1, grid, grid, channels))
        return embeddings


def _block(layer: Any, hidden: Tensor, update: Tensor | None, grid: int) -> tuple[Tensor, Tensor]:
    """Run one block on `[B·G·G, C]`. Returns the residual before its last addition, and the update to add to it."""
    attention = layer.attn
    hidden, normed = add_norm(hidden, update, layer.layer_norm1)
    qkv = torch.addmm(attention.qkv.bias, normed, attention.qkv.weight.t())
    attended = streamed_attention(
        qkv.view(-1, grid, grid, qkv.shape[1]), attention.qkv.bias, attention.rel_pos_h, attention.rel_pos_w,
        attention.num_attention_heads, layer.window_size or grid,
    )  # fmt: skip
    projected = torch.addmm(attention.proj.bias, attended.view(hidden.shape), attention.proj.weight.t())
    hidden, normed = add_norm(hidden, projected, layer.layer_norm2)
    first, second = layer.mlp.lin1, layer.mlp.lin2
    wide = torch._addmm_activation(first.bias, normed, first.weight.t(), use_gelu=True)
    return hidden, torch.addmm(second.bias, wide, second.weight.t())
