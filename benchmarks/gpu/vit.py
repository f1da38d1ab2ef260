"""SAM's ViT in half precision, in the formulations that the benchmark compares.

All have the same weights and compute the same function; they differ in how relative positions enter the attention and
in where windows are filled up.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamModel

from benchmarks.gpu.attention_kernels import streamed_attention
from benchmarks.gpu.fused_vit import FusedEncoder
from modeling.encoder_graph import ImageEncoderGraph
from modeling.folded_attention import FoldedAttention
from modeling.half_precision import halved
from modeling.precision import FP16

Formulation = Literal[
    "bias", "folded", "padded late", "streamed", "streamed, half sums", "segment-anything-fast", "fused"
]

FORMULATIONS: dict[Formulation, str] = {
    "bias": "transformers' own: relative positions as an added bias, windows filled up before the projection",
    "folded": "as exported today: relative positions in wider heads, windows filled up before the projection",
    "padded late": "folded, windows filled up with the bias vector after the projection",
    "streamed": "relative positions streamed by a Triton-language kernel that finds windows by addressing",
    "streamed, half sums": "streamed, matrix products of the attention summed in half precision",
    "fused": "streamed, with norms, residuals, patches and GELU in as few kernels as can be",
    "segment-anything-fast": "windows with an added bias, whole grid streamed, windows filled up before the projection",
}


def encoder_graph(model: SamModel, formulation: Formulation) -> ImageEncoderGraph | FusedEncoder:
    """Build `sam_image_encoder` in half precision, in one formulation. Weights are copied from the float32 model."""
    if formulation == "fused":
        return FusedEncoder(model)
    graph = ImageEncoderGraph(model, FP16)
    if formulation == "folded":
        return graph.to(model.device)
    encoder: Any = halved(model.vision_encoder)
    if formulation == "bias":
        graph.vision_encoder = encoder
        return graph.to(model.device)
    vit: Any = graph.vision_encoder
    blocks = []
    for index, layer in enumerate(encoder.layers):
        window = layer.window_size or vit.layers[index].window
        if formulation == "padded late":
            attend: nn.Module = PaddedLate(vit.layers[index].attn, window)
        elif formulation == "segment-anything-fast" and layer.window_size:
            attend = BiasedWindows(layer.attn, window)
        else:
            attend = Streamed(layer.attn, window, half_sums=formulation == "streamed, half sums")
        blocks.append(Block(layer, attend))
    vit.layers = nn.ModuleList(blocks)
    return graph.to(model.device)


class Block(nn.Module):
    """One block on `[B, G, G, C]`, around an attention on whole grids."""

    def __init__(self, layer: Any, attention: nn.Module) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2, self.mlp = layer.layer_norm1, layer.layer_norm2, layer.mlp
        self.attn = attention

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.attn(self.layer_norm1(hidden_states))
        updated: Tensor = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return updated


class Streamed(nn.Module):
    """Attention by `streamed_attention`, in windows or on the whole grid."""

    def __init__(self, attention: Any, window: int, *, half_sums: bool = False) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.heads, self.window, self.half_sums = attention.num_attention_heads, window, half_sums

    def forward(self, hidden_states: Tensor) -> Tensor:
        attended = streamed_attention(
            self.qkv(hidden_states), self.qkv.bias, self.rel_pos_h, self.rel_pos_w, self.heads, self.window,
            self.half_sums,
        )  # fmt: skip
        projected: Tensor = self.proj(attended)
        return projected


class PaddedLate(nn.Module):
    """Folded attention whose windows are padded after the projection, with the projection of zeros (its bias)."""

    def __init__(self, attention: FoldedAttention, window: int) -> None:
        super().__init__()
        self.inner, self.window = attention, window

    def forward(self, hidden_states: Tensor) -> Tensor:
        grid = hidden_states.shape[1]
        qkv = self.inner.qkv(hidden_states)
        missing = -grid % self.window
        if missing:
            bias = self.inner.qkv.bias
            right = bias.expand(qkv.shape[0], grid, missing, -1)
            below = bias.expand(qkv.shape[0], missing, grid + missing, -1)
            qkv = torch.cat([torch.cat([qkv, right], dim=2), below], dim=1)
        attended = in_windows(self.inner.attend, qkv, self.window)[:, :grid, :grid]
        projected: Tensor = self.inner.proj(attended)
        return projected


class BiasedWindows(nn.Module):
    """Attention in windows with relative positions as a bias, by scaled dot product attention."""

    def __init__(self, attention: Any, window: int) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.heads, self.window = attention.num_attention_heads, window

    def forward(self, hidden_states: Tensor) -> Tensor:
        grid = hidden_states.shape[1]
        missing = -grid % self.window
        filled = F.pad(hidden_states, (0, 0, 0, missing, 0, missing))
        attended = in_windows(lambda windows: self.proj(self.attend(self.qkv(windows))), filled, self.window)
        return attended[:, :grid, :grid].contiguous()

    def attend(self, qkv: Tensor) -> Tensor:
        """Attend `[B, side, side, 3·C]`, giving `[B, side, side, C]`."""
        query, key, value = split_heads(qkv, self.heads)
        bias = position_bias(query, self.rel_pos_h, self.rel_pos_w)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return attended.transpose(1, 2).reshape(*qkv.shape[:3], -1)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split `[B, side, side, 3·C]` into query, key and value `[B, heads, side·side, D]`."""
    batch, side, _, width = qkv.shape
    parts = qkv.reshape(batch, side * side, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    return query, key, value


def position_terms(query: Tensor, table_h: Tensor, table_w: Tensor) -> tuple[Tensor, Tensor]:
    """Compute SAM's `rel_h` and `rel_w`, `[B, heads, side·side, side]`, for queries `[B, heads, side·side, D]`."""
    side = (table_h.shape[0] + 1) // 2
    index = torch.arange(side, device=query.device)
    distance = index[:, None] - index[None, :] + side - 1
    places = query.unflatten(2, (side, side))
    by_row = places @ table_h[distance].transpose(1, 2)
    by_column = (places.transpose(2, 3) @ table_w[distance].transpose(1, 2)).transpose(2, 3)
    return by_row.flatten(2, 3), by_column.flatten(2, 3)


def position_bias(query: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
    """Materialise the bias of attention logits, `[B, heads, side·side, side·side]`."""
    by_row, by_column = position_terms(query, table_h, table_w)
    return (by_row[..., :, None] + by_column[..., None, :]).flatten(3)


def in_windows(attend: Callable[[Tensor], Tensor], cells: Tensor, window: int) -> Tensor:
    """Apply a function of windows to a grid `[B, G, G, C]` whose side is a multiple of the window's."""
    batch, grid, _, channels = cells.shape
    tiles = grid // window
    windows = cells.reshape(batch, tiles, window, tiles, window, channels).transpose(2, 3)
    attended = attend(windows.reshape(-1, window, window, channels))
    return attended.reshape(batch, tiles, tiles, window, window, -1).transpose(2, 3).reshape(batch, grid, grid, -1)
