"""Kernels between the encoder's matrix products, in the Triton language: patch embedding input, and residuals with
norms."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.gpu.attention_kernels import interpreted


@triton.jit
def _patches(image, input_size, mean, std, out, S: tl.constexpr, PATCH: tl.constexpr, S_PAD: tl.constexpr):
    """Normalise one row of patches of one colour channel, zero it beyond the image, and reorder it into patches."""
    colour, patch_y, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    within, x = tl.arange(0, PATCH)[:, None], tl.arange(0, S_PAD)[None, :]
    y = patch_y * PATCH + within
    pixels = tl.load(image + ((batch * 3 + colour) * S + y) * S + x, mask=x < S, other=0).to(tl.float32)
    height, width = tl.load(input_size + batch * 2), tl.load(input_size + batch * 2 + 1)
    values = (pixels - tl.load(mean + colour)) / tl.load(std + colour)
    values = tl.where((x < width) & (y < height), values, 0.0)
    side = S // PATCH
    patch = (batch * side + patch_y) * side + x // PATCH
    at = patch * (3 * PATCH * PATCH) + colour * PATCH * PATCH + within * PATCH + x % PATCH
    tl.store(out + at, values.to(out.dtype.element_ty), mask=(x < S) & (within < PATCH))


@triton.jit
def _add_norm(
    hidden, update, weight, bias, total, normed, eps, rows,
    C: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, ADD: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Add updates to R rows of residuals and compute the layer norms. A row is split into two powers of two."""
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    low, high = tl.arange(0, LOW)[None, :], LOW + tl.arange(0, HIGH)[None, :]
    low_here, high_here = (row < rows) & (low < C), (row < rows) & (high < C)
    low_at, high_at = row.to(tl.int64) * C + low, row.to(tl.int64) * C + high
    x_low = tl.load(hidden + low_at, mask=low_here, other=0.0).to(tl.float32)
    x_high = tl.load(hidden + high_at, mask=high_here, other=0.0).to(tl.float32)
    dtype = normed.dtype.element_ty
    if ADD:
        s_low = (x_low + tl.load(update + low_at, mask=low_here, other=0.0).to(tl.float32)).to(dtype)
        s_high = (x_high + tl.load(update + high_at, mask=high_here, other=0.0).to(tl.float32)).to(dtype)
        tl.store(total + low_at, s_low, mask=low_here)
        tl.store(total + high_at, s_high, mask=high_here)
        x_low, x_high = s_low.to(tl.float32), s_high.to(tl.float32)
    mean = ((tl.sum(x_low, 1) + tl.sum(x_high, 1)) / C)[:, None]
    d_low, d_high = x_low - mean, tl.where(high < C, x_high - mean, 0.0)
    scale = (1.0 / tl.sqrt((tl.sum(d_low * d_low, 1) + tl.sum(d_high * d_high, 1)) / C + eps))[:, None]
    y_low = d_low * scale * tl.load(weight + low).to(tl.float32) + tl.load(bias + low).to(tl.float32)
    tl.store(normed + low_at, y_low.to(dtype), mask=low_here)
    w_high = tl.load(weight + high, mask=high < C, other=0.0).to(tl.float32)
    y_high = d_high * scale * w_high + tl.load(bias + high, mask=high < C, other=0.0).to(tl.float32)
    tl.store(normed + high_at, y_high.to(dtype), mask=high_here)


def patches(image: Tensor, input_size: Tensor, mean: Tensor, std: Tensor, patch: int) -> Tensor:
    """Arrange an image as the rows of the patch embedding's matrix product.

    Args:
        image: uint8 `[B, 3, S, S]`.
        input_size: int32 `[B, 2]`, (H, W) of the region that holds the image.
        mean, std: float32 `[3, 1, 1]`, of RGB values.
        patch: side of a patch, in pixels.

    Returns:
        half `[B·(S/patch)², 3·patch²]`, colours first, as the weights of a convolution are laid out.
    """
    batch, _, side, _ = image.shape
    out = torch.empty((batch * (side // patch) ** 2, 3 * patch**2), dtype=torch.float16, device=image.device)
    padded = 1 << (side - 1).bit_length()
    _patches[(3, side // patch, batch)](image, input_size, mean, std, out, side, patch, padded, num_warps=8)
    return out


def add_norm(hidden: Tensor, update: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Add an update to a residual and compute the layer norm of the sum, in one pass. Statistics are in single
    precision.

    Args:
        hidden: half `[rows, C]`.
        update: likewise, or None to take `hidden` as it is.
        norm: a layer norm over C channels.

    Returns:
        The sum and its norm, half `[rows, C]`.
    """
    rows, channels = hidden.shape
    total, normed = hidden if update is None else hidden.new_empty(hidden.shape), hidden.new_empty(hidden.shape)
    low = 1 << (channels.bit_length() - 1)
    high = max(1 << (channels - low - 1).bit_length(), 1) if channels > low else 1
    # One warp per row. In the interpreter, the number of rows per program hardly matters.
    together = 1024 if interpreted() else 4
    _add_norm[(triton.cdiv(rows, together),)](
        hidden, hidden if update is None else update, norm.weight, norm.bias, total, normed, norm.eps, rows,
        channels, low, high, update is not None, together, num_warps=4,
    )  # fmt: skip
    return total, normed
