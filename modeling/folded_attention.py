"""SAM's image attention as plain attention: the decomposed relative positions are folded into wider heads.

SAM adds two terms to each attention logit: the products of the query with an embedding of the row distance and with one
of the column distance. Both are linear in the query, so they can be written as inner products with keys that are
one-hot vectors of their row and column:

    q' = [q·scale, q·R_rowᵀ, q·R_columnᵀ]      k' = [k, onehot(row), onehot(column)]

`q'·k'` is exactly the biased logit. No bias of 4096 × 4096 is materialised, and fused attention kernels, which do not
support such a bias, can be used.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionAttention

# TensorRT fuses attention in half precision only if queries, keys and values have the same width, a multiple of 8, up
# to 256 (its guide, "Fused Attention"; the condition on values was found by compiling both variants).
FUSED_WIDTH_MULTIPLE = 8


class FoldedAttention(nn.Module):
    """`SamVisionAttention` with the same weights under the same names, on windows or on the whole grid.

    Args:
        attention: whose weights are used, not copied.
        side: of the square of cells that attend to each other.
        one_width: widen the values to the width of queries and keys, with zeros, for fused kernels. Costs time where
            there are none.
    """

    own_place: Tensor
    distance: Tensor

    def __init__(self, attention: SamVisionAttention, side: int, *, one_width: bool) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.heads, self.scale, self.side = attention.num_attention_heads, attention.scale, side
        self.one_width = one_width
        self.head_width = self.qkv.in_features // self.heads
        folded_width = self.head_width + 2 * side
        self.zeros = -folded_width % FUSED_WIDTH_MULTIPLE if one_width else 0

        axis = torch.eye(side)
        rows = axis[:, None, :].expand(side, side, side)
        columns = axis[None, :, :].expand(side, side, side)
        own_place = F.pad(torch.cat([rows, columns], dim=-1).reshape(side * side, 2 * side), (0, self.zeros))
        self.register_buffer("own_place", own_place.to(self.qkv.weight.dtype), persistent=False)
        index = torch.arange(side)
        self.register_buffer("distance", index[:, None] - index[None, :] + side - 1, persistent=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Attend among the cells of each square, `[B, side, side, C]`."""
        projected: Tensor = self.proj(self.attend(self.qkv(hidden_states)))
        return projected

    def attend(self, qkv: Tensor) -> Tensor:
        """Compute attention without the projections: `[B, side, side, 3·C]` to `[B, side, side, C]`."""
        side, heads, width = self.side, self.heads, self.head_width
        cells = side * side
        query, key, value = qkv.reshape(-1, cells, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)

        places = query.reshape(-1, heads, side, side, width)
        # [side, side, width]: the embedding of the distance between a query's row and each key's row.
        row_distances, column_distances = self.rel_pos_h[self.distance], self.rel_pos_w[self.distance]
        by_row = places @ row_distances.transpose(1, 2)
        if self.zeros:
            column_distances = F.pad(column_distances, (0, 0, 0, self.zeros))
        by_column = (places.transpose(2, 3) @ column_distances.transpose(1, 2)).transpose(2, 3)

        query = torch.cat([query * self.scale, by_row.flatten(2, 3), by_column.flatten(2, 3)], dim=-1)
        key = torch.cat([key, self.own_place.expand(key.shape[0], heads, -1, -1)], dim=-1)
        if self.one_width:
            value = F.pad(value, (0, query.shape[-1] - width))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :width]
        return attended.transpose(1, 2).reshape(-1, side, side, heads * width)
