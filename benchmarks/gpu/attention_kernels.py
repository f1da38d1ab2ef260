"""Attention with SAM's decomposed relative positions, added tile by tile, in the Triton language.

The logits of SAM's image attention are `q·k·scale + rel_h[q, row(k)] + rel_w[q, column(k)]`. The kernel visits keys row
by row, so `rel_w` is one tile for the whole loop and `rel_h` is one value per row. The bias is never materialised and
heads are not widened (a head width of 80 is computed as a product of width 64 and one of width 16).

Both kernels read the output of the `qkv` projection in place, `[B, G, G, 3, heads, D]`, and address windows without
copying them. Cells beyond the grid, which SAM pads with zeros before the projection, have the projection's bias as key
and value.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _relative_positions(
    qkv, table, terms,
    G: tl.constexpr, S: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, G_PAD: tl.constexpr, S_PAD: tl.constexpr,
    D_LOW: tl.constexpr, D_HIGH: tl.constexpr, OF_ROWS: tl.constexpr,
):  # fmt: skip
    """Compute the position terms of all queries in one row (or, for `rel_w`, one column) of the grid, for one head,
    times log2(e).

    All of them have the same distances to the keys' rows (columns), so they are one product with `S` embeddings.
    """
    line, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    i, k = tl.arange(0, G_PAD), tl.arange(0, S_PAD)
    low, high = tl.arange(0, D_LOW), D_LOW + tl.arange(0, D_HIGH)
    cell = line * G + i if OF_ROWS else i * G + line
    here, in_square = i < G, k < S
    query = qkv + (batch * G * G + cell).to(tl.int64)[:, None] * (3 * HEADS * D) + head * D
    embedding = table + tl.where(in_square, (line % S) - k + S - 1, 0)[:, None] * D
    q_low = tl.load(query + low[None, :], mask=here[:, None], other=0.0)
    e_low = tl.load(embedding + low[None, :])
    product = tl.dot(e_low, tl.trans(q_low)) if OF_ROWS else tl.dot(q_low, tl.trans(e_low))
    if D > D_LOW:
        q_high = tl.load(query + high[None, :], mask=here[:, None], other=0.0)
        e_high = tl.load(embedding + high[None, :])
        product += tl.dot(e_high, tl.trans(q_high)) if OF_ROWS else tl.dot(q_high, tl.trans(e_high))
    product = (product * LOG2_E).to(terms.dtype.element_ty)
    start = terms + (batch * HEADS + head).to(tl.int64) * G * G * S
    # Both layouts write, and later read, neighbouring addresses together.
    if OF_ROWS:
        tl.store(start + k[:, None] * G * G + cell[None, :], product, mask=in_square[:, None] & here[None, :])
    else:
        tl.store(start + cell[:, None] * S + k[None, :], product, mask=here[:, None] & in_square[None, :])


def interpreted() -> bool:
    """Return True if Triton interprets kernels with numpy, which is the only option without a GPU."""
    return bool(triton.knobs.runtime.interpret)


def _configs() -> list[Any]:
    if interpreted():
        # The interpreter cannot autotune, and is fastest with few operations on large tiles.
        return [triton.Config({"M": 256})]
    # With at most 168 registers, three programs of four warps fit on a multiprocessor.
    candidates = ((64, 4, 2, None), (64, 4, 3, None), (64, 4, 3, 168), (128, 8, 2, None), (128, 8, 3, None))
    return [
        triton.Config({"M": m}, num_warps=warps, num_stages=stages, maxnreg=registers)
        for m, warps, stages, registers in candidates
    ]


@triton.autotune(configs=_configs(), key=["G", "S", "ACCUMULATE_HALF"])
@triton.jit
def _attention(
    qkv, bias, rel_h, rel_w, out, scale,
    G: tl.constexpr, S: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    ROW: tl.constexpr, ROWS: tl.constexpr, D_LOW: tl.constexpr, D_HIGH: tl.constexpr,
    WHOLE: tl.constexpr, ACCUMULATE_HALF: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Attend M queries of one square and head to all of its keys, `ROWS` rows at a time, each row padded to `ROW`."""
    N: tl.constexpr = ROW * ROWS
    SQUARES: tl.constexpr = (G + S - 1) // S
    STRIDE: tl.constexpr = 3 * HEADS * D
    head = tl.program_id(1)
    batch, square = tl.program_id(2) // (SQUARES * SQUARES), tl.program_id(2) % (SQUARES * SQUARES)
    top, left = square // SQUARES * S, square % SQUARES * S

    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, N)
    low, high = tl.arange(0, D_LOW), D_LOW + tl.arange(0, D_HIGH)
    y, x = top + m // S, left + m % S
    here = (m < S * S) & (y < G) & (x < G)
    cell = tl.where(here, y * G + x, 0)
    image = qkv + batch.to(tl.int64) * G * G * STRIDE + head * D
    query = image + cell[:, None] * STRIDE
    # Logits are scaled by log2(e), because exp2 is used.
    q_low = (tl.load(query + low[None, :]).to(tl.float32) * (scale * LOG2_E)).to(qkv.dtype.element_ty)
    q_high = q_low
    if D > D_LOW:
        q_high = (tl.load(query + high[None, :]).to(tl.float32) * (scale * LOG2_E)).to(qkv.dtype.element_ty)
    terms = (batch * HEADS + head).to(tl.int64) * G * G * S
    by_row_at = rel_h + terms + cell

    key_x, row_of_key = n % ROW, n // ROW
    in_row = key_x < S
    by_column = tl.load(rel_w + terms + cell[:, None] * S + tl.where(in_row, key_x, 0)[None, :]).to(tl.float32)
    by_column = tl.where(in_row[None, :], by_column, float("-inf"))

    largest = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    out_low = tl.zeros([M, D_LOW], tl.float32)
    out_high = tl.zeros([M, D_HIGH], tl.float32)
    for first in range(0, S, ROWS):
        if WHOLE:
            k_low_at = image + HEADS * D + ((first + row_of_key) * G + key_x)[:, None] * STRIDE
            v_low_at = k_low_at + HEADS * D
        else:
            key_y = first + row_of_key
            inside = in_row & (key_y < S) & (top + key_y < G) & (left + key_x < G)
            at = tl.where(inside, (top + key_y) * G + left + key_x, 0)[:, None] * STRIDE
            k_low_at = tl.where(inside[:, None], image + HEADS * D + at, bias + (HEADS + head) * D + at * 0)
            v_low_at = tl.where(inside[:, None], image + 2 * HEADS * D + at, bias + (2 * HEADS + head) * D + at * 0)
        by_row = tl.load(by_row_at + first * G * G).to(tl.float32)[:, None]
        if ROWS == 2:
            second = tl.load(by_row_at + tl.minimum(first + 1, S - 1) * G * G).to(tl.float32)[:, None]
            by_row = tl.where(row_of_key[None, :] == 0, by_row, second)
        k_low = tl.trans(tl.load(k_low_at + low[None, :]))
        if ACCUMULATE_HALF:
            products = tl.dot(q_low, k_low, out_dtype=tl.float16)
            if D > D_LOW:
                products = tl.dot(q_high, tl.trans(tl.load(k_low_at + high[None, :])), products, out_dtype=tl.float16)
            logits = by_column + by_row + products.to(tl.float32)
        else:
            logits = tl.dot(q_low, k_low, by_column + by_row)
            if D > D_LOW:
                logits = tl.dot(q_high, tl.trans(tl.load(k_low_at + high[None, :])), logits)
        if S % ROWS != 0:
            logits = tl.where((first + row_of_key < S)[None, :], logits, float("-inf"))
        larger = tl.maximum(largest, tl.max(logits, 1))
        shrink = tl.exp2(largest - larger)
        weights = tl.exp2(logits - larger[:, None])
        total = total * shrink + tl.sum(weights, 1)
        largest = larger
        half = weights.to(qkv.dtype.element_ty)
        v_low = tl.load(v_low_at + low[None, :])
        if ACCUMULATE_HALF:
            out_low = out_low * shrink[:, None] + tl.dot(half, v_low, out_dtype=tl.float16).to(tl.float32)
        else:
            out_low = tl.dot(half, v_low, out_low * shrink[:, None])
        if D > D_LOW:
            v_high = tl.load(v_low_at + high[None, :])
            if ACCUMULATE_HALF:
                out_high = out_high * shrink[:, None] + tl.dot(half, v_high, out_dtype=tl.float16).to(tl.float32)
            else:
                out_high = tl.dot(half, v_high, out_high * shrink[:, None])

    target = out + ((batch * G * G + cell).to(tl.int64) * HEADS * D)[:, None] + head * D
    dtype = out.dtype.element_ty
    tl.store(target + low[None, :], (out_low / total[:, None]).to(dtype), mask=here[:, None])
    if D > D_LOW:
        tl.store(target + high[None, :], (out_high / total[:, None]).to(dtype), mask=here[:, None])


def relative_positions(qkv: Tensor, table_h: Tensor, table_w: Tensor, heads: int, side: int) -> tuple[Tensor, Tensor]:
    """Compute the products of each query with the embeddings of its distances to the rows and columns of its square.

    Args:
        qkv: half `[B, G, G, 3·C]`, contiguous.
        table_h, table_w: half `[2·side - 1, D]`, by distance.
        heads: of the attention.
        side: of the squares that attend to themselves: a window, or the grid.

    Returns:
        half `[B, heads, side, G·G]` by the keys' rows, and `[B, heads, G·G, side]` by their columns; times log2(e).
    """
    batch, grid, _, width = qkv.shape
    head_width = width // (3 * heads)
    low, high = _halves(head_width)
    rel_h = qkv.new_empty((batch, heads, side, grid * grid))
    rel_w = qkv.new_empty((batch, heads, grid * grid, side))
    for table, terms, of_rows in ((table_h, rel_h, True), (table_w, rel_w, False)):
        _relative_positions[(grid, heads, batch)](
            qkv, table, terms, grid, side, heads, head_width, _padded(grid), _padded(side), low, high, of_rows
        )
    return rel_h, rel_w


@torch.library.custom_op("samserve_benchmarks::streamed_attention", mutates_args=())
def streamed_attention(
    qkv: Tensor,
    qkv_bias: Tensor,
    table_h: Tensor,
    table_w: Tensor,
    heads: int,
    side: int,
    accumulate_half: bool = False,
) -> Tensor:
    """Compute SAM's image attention between the projections `qkv` and `proj`.

    Args:
        qkv: half `[B, G, G, 3·C]`, contiguous, of the cells of the image alone.
        qkv_bias: half `[3·C]`, which stands for the cells that fill up the last windows.
        table_h, table_w: half `[2·side - 1, D]`, the embeddings of relative positions.
        heads: of the attention.
        side: of the squares that attend to themselves: a window, or the grid.
        accumulate_half: sum matrix products in half precision, as some fused kernels do.

    Returns:
        half `[B, G, G, C]`.
    """
    batch, grid, _, width = qkv.shape
    head_width = width // (3 * heads)
    low, high = _halves(head_width)
    rel_h, rel_w = relative_positions(qkv, table_h, table_w, heads, side)
    out = qkv.new_empty((batch, grid, grid, width // 3))
    row = _padded(side)
    rows = 2 if row < 32 else 1
    squares = -(-grid // side)

    def launch_grid(meta: dict[str, Any]) -> tuple[int, int, int]:
        return (triton.cdiv(side * side, meta["M"]), heads, batch * squares**2)

    _attention[launch_grid](
        qkv, qkv_bias, rel_h, rel_w, out, head_width**-0.5, grid, side, heads, head_width,
        row, rows, low, high, side == grid == row, accumulate_half,
    )  # fmt: skip
    return out


@streamed_attention.register_fake
def _(qkv: Tensor, *others: Any) -> Tensor:
    return qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))


def _halves(head_width: int) -> tuple[int, int]:
    """Split a head's width into a sum of two powers of two. If one is enough, the second is ignored."""
    low = 1 << (head_width.bit_length() - 1)
    rest = head_width - low
    if low < 16 or (rest and (rest < 16 or rest & (rest - 1))):
        raise ValueError(f"a head of {head_width} is not the sum of two powers of two of at least 16")
    return low, rest or 16


def _padded(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())
