"""SAM's ViT as exported: transformers' `SamVisionEncoder` with folded attention."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionEncoder, SamVisionLayer

from modeling.folded_attention import FoldedAttention


class VitGraph(nn.Module):
    """The modules of a `SamVisionEncoder` under their own names, with another attention that keeps its weights' names.

    Args:
        encoder: whose modules are used, not copied.
        fused_attention: shape attention for fused kernels (`FoldedAttention`'s `one_width`).
    """

    def __init__(self, encoder: SamVisionEncoder, *, fused_attention: bool) -> None:
        super().__init__()
        config: Any = encoder.config
        grid = config.image_size // config.patch_size
        self.patch_embed, self.pos_embed, self.neck = encoder.patch_embed, encoder.pos_embed, encoder.neck
        self.layers = nn.ModuleList(_Layer(layer, grid, fused_attention) for layer in encoder.layers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode normalised pixels `[B, 3, S, S]` to embeddings `[B, C, G, G]`."""
        hidden_states = self.patch_embed(pixel_values)
        if self.pos_embed is not None:
            hidden_states = hidden_states + self.pos_embed
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        embeddings: Tensor = self.neck(hidden_states)
        return embeddings


class _Layer(nn.Module):
    """One block on `[B, G, G, C]`."""

    def __init__(self, layer: Any, grid: int, fused_attention: bool) -> None:
        super().__init__()
        assert isinstance(layer, SamVisionLayer)
        # 0 means that all cells attend to each other: one window as large as the grid.
        self.window = layer.window_size or grid
        self.layer_norm1, self.layer_norm2, self.mlp = layer.layer_norm1, layer.layer_norm2, layer.mlp
        self.attn = FoldedAttention(layer.attn, self.window, one_width=fused_attention)

    def forward(self, hidden_states: Tensor) -> Tensor:
        attended = _attend_in_windows(self.attn, self.layer_norm1(hidden_states), self.window)
        hidden_states = hidden_states + attended
        updated: Tensor = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return updated


def _attend_in_windows(attention: nn.Module, hidden_states: Tensor, window: int) -> Tensor:
    """Attend within windows that tile the grid `[B, G, G, C]`. The last ones are padded with zeros, as in SAM."""
    grid, channels = hidden_states.shape[1], hidden_states.shape[3]
    missing = -grid % window
    if missing:
        hidden_states = F.pad(hidden_states, (0, 0, 0, missing, 0, missing))
    tiles = (grid + missing) // window
    windows = hidden_states.reshape(-1, tiles, window, tiles, window, channels).transpose(2, 3)
    attended = attention(windows.reshape(-1, window, window, channels))
    attended = attended.reshape(-1, tiles, tiles, window, window, channels).transpose(2, 3)
    return attended.reshape(-1, grid + missing, grid + missing, channels)[:, :grid, :grid]
