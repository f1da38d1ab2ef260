"""The mask decoder's passes over an image, in the Triton language. Each pass reads the image once.

With the projections absorbed into the tokens (`modeling.absorbed_decoder`), the decoder passes over an image `[L, C]`
six times: three attentions from tokens to image, which sum over cells; two from image to tokens, which update each
cell; and the computation of the masks. Tokens are padded to a power of two and heads come first, so that a row of `H·T`
logits is one tile.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.gpu.attention_kernels import interpreted

CELLS = 128 if interpreted() else 64
"""Number of cells per tile. The interpreter is fastest with few operations on large tiles."""


@triton.jit
def _placed(
    embeddings, features, weight, constant, out,
    L: tl.constexpr, C: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr, P: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Compute the image of one prompt, `[L, C]`: the embedding `[C, L]` plus the dense prompt, a product of K
    factors."""
    cell, row = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    c, k = tl.arange(0, C), tl.arange(0, K_PAD)
    here = cell < L
    at = (row // P).to(tl.int64) * C * L + c[:, None] * L + cell[None, :]
    image = tl.trans(tl.load(embeddings + at, mask=here[None, :], other=0.0)).to(tl.float32)
    if K > 0:
        used = k < K
        at = row.to(tl.int64) * K * L + k[:, None] * L + cell[None, :]
        f = tl.load(features + at, mask=used[:, None] & here[None, :], other=0.0)
        w = tl.load(weight + k[:, None] * C + c[None, :], mask=used[:, None], other=0.0)
        image = tl.dot(tl.trans(f), w, image)
    else:
        image += tl.load(constant + c).to(tl.float32)[None, :]
    at = (row.to(tl.int64) * L + cell)[:, None] * C + c[None, :]
    tl.store(out + at, image.to(out.dtype.element_ty), mask=here[:, None])


@triton.jit
def _to_image(
    queries, image, position, sums, largest_out, total_out,
    L: tl.constexpr, C: tl.constexpr, HT: tl.constexpr, SPLITS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Attend all tokens and heads of one prompt to one part of its image. Writes unnormalised sums over cells."""
    part, row = tl.program_id(0), tl.program_id(1)
    SPAN: tl.constexpr = (L + SPLITS * N - 1) // (SPLITS * N) * N
    t, c, n = tl.arange(0, HT), tl.arange(0, C), tl.arange(0, N)
    q = tl.load(queries + row.to(tl.int64) * HT * C + t[:, None] * C + c[None, :])
    largest = tl.full([HT], -1e30, tl.float32)
    total = tl.zeros([HT], tl.float32)
    seen = tl.zeros([HT, C], tl.float32)
    for start in range(0, SPAN, N):
        cell = part * SPAN + start + n
        here = cell < L
        at = cell[:, None] * C + c[None, :]
        x = tl.load(image + row.to(tl.int64) * L * C + at, mask=here[:, None], other=0.0)
        keys = x + tl.load(position + at, mask=here[:, None], other=0.0)
        logits = tl.dot(q, tl.trans(keys))
        logits = tl.where(here[None, :], logits, -1e30)
        larger = tl.maximum(largest, tl.max(logits, 1))
        shrink = tl.exp2(largest - larger)
        weights = tl.where(here[None, :], tl.exp2(logits - larger[:, None]), 0.0)
        total = total * shrink + tl.sum(weights, 1)
        seen = tl.dot(weights.to(x.dtype), x, seen * shrink[:, None])
        largest = larger
    line = (row * SPLITS + part).to(tl.int64) * HT + t
    tl.store(sums + line[:, None] * C + c[None, :], seen)
    tl.store(largest_out + line, largest)
    tl.store(total_out + line, total)


@triton.jit
def _joined(sums, largest, total, out, C: tl.constexpr, HT: tl.constexpr, SPLITS: tl.constexpr, T: tl.constexpr):
    """Combine the sums of all parts for T tokens."""
    row, c = tl.program_id(1), tl.arange(0, C)
    t = tl.program_id(0) * T + tl.arange(0, T)
    peak = tl.full([T], -1e30, tl.float32)
    for part in range(SPLITS):
        peak = tl.maximum(peak, tl.load(largest + (row * SPLITS + part) * HT + t))
    weight = tl.zeros([T], tl.float32)
    seen = tl.zeros([T, C], tl.float32)
    for part in range(SPLITS):
        line = (row * SPLITS + part).to(tl.int64) * HT + t
        share = tl.exp2(tl.load(largest + line) - peak)
        weight += share * tl.load(total + line)
        seen += share[:, None] * tl.load(sums + line[:, None] * C + c[None, :])
    at = (row.to(tl.int64) * HT + t)[:, None] * C + c[None, :]
    tl.store(out + at, (seen / weight[:, None]).to(out.dtype.element_ty))


@triton.jit
def _from_image(
    image, position, keys, bias, values, norm_weight, norm_bias, eps, out,
    L: tl.constexpr, C: tl.constexpr, H: tl.constexpr, T: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Attend cells of one prompt's image to the tokens, add the residual and apply the norm."""
    HT: tl.constexpr = H * T
    cell, row = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    t, c = tl.arange(0, HT), tl.arange(0, C)
    here = (cell < L)[:, None]
    at = cell[:, None] * C + c[None, :]
    start = row.to(tl.int64) * L * C
    x = tl.load(image + start + at, mask=here, other=0.0)
    placed = x + tl.load(position + at, mask=here, other=0.0)
    tokens = row.to(tl.int64) * HT * C + t[:, None] * C + c[None, :]
    logits = tl.dot(placed, tl.trans(tl.load(keys + tokens))) + tl.load(bias + row * HT + t)[None, :]
    by_head = tl.reshape(logits, (M, H, T))
    weights = tl.exp2(by_head - tl.max(by_head, 2)[:, :, None])
    weights = tl.reshape(weights / tl.sum(weights, 2)[:, :, None], (M, HT)).to(x.dtype)
    y = tl.dot(weights, tl.load(values + tokens), x.to(tl.float32))
    y -= (tl.sum(y, 1) / C)[:, None]
    y *= (1.0 / tl.sqrt(tl.sum(y * y, 1) / C + eps))[:, None]
    y = y * tl.load(norm_weight + c)[None, :] + tl.load(norm_bias + c)[None, :]
    tl.store(out + start + at, y.to(out.dtype.element_ty), mask=here)


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _masks(
    image, first_weight, first_bias, norm_weight, norm_bias, eps, second_weight, second_bias, hyper, out,
    L: tl.constexpr, C: tl.constexpr, G: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr,
    FIRST: tl.constexpr, COUNT: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Upscale some cells twice and compute their pixels of `COUNT` masks: 16 pixels per cell and mask."""
    cell, row = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    c, c1, n = tl.arange(0, C), tl.arange(0, C1), tl.arange(0, 16)
    wide = tl.arange(0, 4 * C2)
    here = cell < L
    dtype = image.dtype.element_ty
    x = tl.load(image + row.to(tl.int64) * L * C + cell[:, None] * C + c[None, :], mask=here[:, None], other=0.0)
    w2 = tl.load(second_weight + c1[:, None] * (4 * C2) + wide[None, :])
    h = tl.load(hyper + row * (4 * C2 * 16) + wide[:, None] * 16 + n[None, :])
    place, mask = n // 4, n % 4
    for quarter in tl.static_range(4):
        u = tl.dot(x, tl.load(first_weight + c[:, None] * (4 * C1) + quarter * C1 + c1[None, :]))
        u = (u + tl.load(first_bias + c1).to(tl.float32)[None, :]).to(dtype).to(tl.float32)
        u -= (tl.sum(u, 1) / C1)[:, None]
        u *= (1.0 / tl.sqrt(tl.sum(u * u, 1) / C1 + eps))[:, None]
        u = (u * tl.load(norm_weight + c1)[None, :] + tl.load(norm_bias + c1)[None, :]).to(dtype).to(tl.float32)
        v = tl.dot(_gelu(u).to(dtype), w2) + tl.load(second_bias + wide % C2).to(tl.float32)[None, :]
        v = _gelu(v.to(dtype).to(tl.float32)).to(dtype)
        logits = tl.dot(v, h)
        y = (4 * (cell // G) + 2 * (quarter // 2))[:, None] + (place // 2)[None, :]
        x_at = (4 * (cell % G) + 2 * (quarter % 2))[:, None] + (place % 2)[None, :]
        wanted = (mask >= FIRST) & (mask < FIRST + COUNT)
        at = ((row.to(tl.int64) * COUNT + mask - FIRST)[None, :] * (4 * G) + y) * (4 * G) + x_at
        tl.store(out + at, logits.to(out.dtype.element_ty), mask=here[:, None] & wanted[None, :])


def placed_image(embeddings: Tensor, features: Tensor | None, weight: Tensor, prompts: int) -> Tensor:
    """Compute the images of all prompts, half `[R, L, C]`.

    Args:
        embeddings: half `[B, C, L]`.
        features: half `[R, K, L]`, factors of the dense prompts, or None where one vector is all of them.
        weight: half `[K, C]`, or that vector, `[C]`.
        prompts: of each image; R is B times as many.
    """
    batch, channels, cells = embeddings.shape
    factors = 0 if features is None else features.shape[1]
    out = embeddings.new_empty((batch * prompts, cells, channels))
    padded = max(16, 1 << (factors - 1).bit_length()) if factors else 16
    _placed[(triton.cdiv(cells, CELLS), batch * prompts)](
        embeddings, embeddings if features is None else features, weight, weight, out,
        cells, channels, factors, padded, prompts, CELLS, num_warps=8,
    )  # fmt: skip
    return out


def tokens_to_image(queries: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Compute softmax(`queries · (image + position)ᵀ`) times the image. Logits are scaled by log2(e).

    Args:
        queries: half `[R, H·T, C]`.
        image: half `[R, L, C]`.
        position: half `[L, C]`.

    Returns:
        half `[R, H·T, C]`.
    """
    rows, tokens, channels = queries.shape
    cells = image.shape[1]
    # Split the image into enough parts that a few prompts use the whole GPU.
    splits = 2 if interpreted() else 4 if rows >= 32 else 16
    sums = torch.empty((rows, splits, tokens, channels), dtype=torch.float32, device=image.device)
    largest, total = (sums.new_empty((rows, splits, tokens)) for _ in range(2))
    _to_image[(splits, rows)](
        queries, image, position, sums, largest, total, cells, channels, tokens, splits, CELLS,
        num_warps=8, num_stages=2,
    )  # fmt: skip
    out = torch.empty_like(queries)
    _joined[(tokens // 16, rows)](sums, largest, total, out, channels, tokens, splits, 16)
    return out


def image_to_tokens(
    image: Tensor, position: Tensor, keys: Tensor, bias: Tensor, values: Tensor, heads: int, norm: Any
) -> Tensor:
    """Attend each cell to the tokens, add the residual and apply the norm: half `[R, L, C]`.

    Args:
        image, position: as for `tokens_to_image`.
        keys, values: half `[R, H·T, C]`, heads first; T is a power of two.
        bias: float32 `[R, H·T]`, of the logits, which are in units of log2.
        heads: H.
        norm: a layer norm over C channels.
    """
    rows, cells, channels = image.shape
    out = torch.empty_like(image)
    _from_image[(triton.cdiv(cells, CELLS), rows)](
        image, position, keys, bias, values, norm.weight, norm.bias, norm.eps, out,
        cells, channels, heads, keys.shape[1] // heads, CELLS, num_warps=8, num_stages=2,
    )  # fmt: skip
    return out


def upscaled_masks(image: Tensor, decoder: Any, hyper_in: Tensor, first: int, count: int, dtype: torch.dtype) -> Tensor:
    """Compute `count` of the four masks, `[R, count, 4·G, 4·G]`.

    Args:
        image: half `[R, G·G, C]`.
        decoder: transformers' `SamMaskDecoder`, in half precision.
        hyper_in: half `[R, 4, C/8]`, one vector for each mask.
        first, count: which masks.
        dtype: of the logits.
    """
    rows, cells, channels = image.shape
    grid = round(cells**0.5)
    first_weight, second_weight = (
        convolution.weight.permute(0, 2, 3, 1).flatten(1).contiguous()
        for convolution in (decoder.upscale_conv1, decoder.upscale_conv2)
    )
    norm = decoder.upscale_layer_norm
    narrow = hyper_in.shape[2]
    # Column `place · 4 + mask` contains the mask's vector in the rows of that place.
    hyper = torch.einsum("rkc,pq->rpcqk", hyper_in, torch.eye(4, dtype=hyper_in.dtype, device=hyper_in.device))
    out = torch.empty((rows, count, 4 * grid, 4 * grid), dtype=dtype, device=image.device)
    _masks[(triton.cdiv(cells, CELLS), rows)](
        image, first_weight, decoder.upscale_conv1.bias, norm.weight, norm.bias, norm.eps,
        second_weight, decoder.upscale_conv2.bias, hyper.reshape(rows, 4 * narrow, 16).contiguous(), out,
        cells, channels, grid, channels // 4, narrow, first, count, CELLS, num_warps=4, num_stages=1,
    )  # fmt: skip
    return out
