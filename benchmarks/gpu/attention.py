"""Measure implementations of relative positions in attention, on the whole grid and in windows."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.attention_kernels import relative_positions, streamed_attention
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.models import VitShapes, shapes_of
from benchmarks.gpu.vit import position_bias, position_terms

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
BATCH = 4


def run(bench: Bench) -> None:
    """Measure attention without the projections, for the whole grid and for windows, at batch 4 (1 on a CPU)."""
    shapes = shapes_of(bench.model)
    batch = BATCH if bench.on_gpu else 1
    tiles = -(-shapes.grid // shapes.window)
    for kind, side, squares in (("whole grid", shapes.grid, 1), ("windows", shapes.window, tiles**2)):
        inputs = Inputs(shapes, side, batch * squares, bench.device)
        about = {"batch": batch, "squares": squares, "side": side, "heads": shapes.heads, "head": shapes.head_width}
        # FLOPs of the plain formulation's two products, without padding.
        cells = shapes.tokens * batch
        flop = 4.0 * cells * side * side * shapes.hidden
        images = {"images": float(batch), "flop": flop}
        for name, make in candidates(inputs, bench.device):
            bench.time(f"{kind}: {name}", make, shapes=about, precision="fp16", work=images, seconds=0.15)
        _streamed(bench, shapes, kind, side, batch, about, images)


class Inputs:
    """Random query, key and value `[squares, heads, side·side, D]`, and random tables of relative positions."""

    def __init__(self, shapes: VitShapes, side: int, squares: int, device: str) -> None:
        def random(*size: int) -> Tensor:
            return torch.randn(*size, device=device, dtype=torch.float16)

        self.side, self.scale = side, shapes.head_width**-0.5
        self.query, self.key, self.value = (
            random(squares, shapes.heads, side * side, shapes.head_width) for _ in range(3)
        )
        self.table_h, self.table_w = (random(2 * side - 1, shapes.head_width) * 0.2 for _ in range(2))

    def folded(self, value_width: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Widen the heads by the folded positions, padded to a multiple of 8. Values are widened to `value_width` if
        given."""
        by_row, by_column = position_terms(self.query, self.table_h, self.table_w)
        query = torch.cat([self.query * self.scale, by_row, by_column], dim=-1)
        cells = torch.arange(self.side**2, device=query.device)
        places = [F.one_hot(part, self.side) for part in (cells // self.side, cells % self.side)]
        place = torch.cat(places, dim=-1).to(query.dtype)
        key = torch.cat([self.key, place.expand(*self.key.shape[:2], -1, -1)], dim=-1)
        missing = -query.shape[-1] % 8
        value = self.value if value_width is None else F.pad(self.value, (0, value_width - self.value.shape[-1]))
        return F.pad(query, (0, missing)), F.pad(key, (0, missing)), value


def candidates(inputs: Inputs, device: str) -> list[tuple[str, Callable[[], Callable[[], Any]]]]:
    """List all implementations except the streamed kernel, whose inputs have the layout of the projection's output."""
    width = math.ceil((inputs.query.shape[-1] + 2 * inputs.side) / 8) * 8

    def folded(value_width: int | None, backend: SDPBackend | None) -> Callable[[], Callable[[], Any]]:
        def make() -> Callable[[], Any]:
            query, key, value = inputs.folded(value_width)
            return lambda: attend(query, key, value, None, 1.0, backend)

        return make

    def biased() -> Callable[[], Any]:
        bias = position_bias(inputs.query, inputs.table_h, inputs.table_w)
        return lambda: attend(inputs.query, inputs.key, inputs.value, bias, inputs.scale, None)

    def without_positions() -> Callable[[], Any]:
        return lambda: attend(inputs.query, inputs.key, inputs.value, None, inputs.scale, None)

    narrow = inputs.query.shape[-1]
    found: list[tuple[str, Callable[[], Callable[[], Any]]]] = [
        (f"SDPA, {width}/{width}", folded(width, None)),
        (f"SDPA, {width}/{narrow}", folded(None, None)),
        ("SDPA, bias held whole", biased),
        ("SDPA, no positions (a floor, not SAM)", without_positions),
        ("FlexAttention", lambda: flex(inputs, device)),
    ]
    if device == "cuda":
        found[1:1] = [(f"SDPA, {width}/{width}, {name}", folded(width, backend)) for name, backend in BACKENDS.items()]
    return found


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, backend: SDPBackend | None
) -> Tensor:
    """Compute scaled dot product attention with the given backend, or with PyTorch's choice."""
    if backend is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)


def flex(inputs: Inputs, device: str) -> Callable[[], Any]:
    """Compute FlexAttention with both position terms added to each logit. Compiled on a GPU."""
    from torch.nn.attention.flex_attention import flex_attention

    by_row, by_column = position_terms(inputs.query, inputs.table_h, inputs.table_w)
    side = inputs.side

    def add_positions(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + by_row[batch, head, query, key // side] + by_column[batch, head, query, key % side]

    run_flex: Any = torch.compile(flex_attention, fullgraph=True, dynamic=False) if device == "cuda" else flex_attention
    return lambda: run_flex(inputs.query, inputs.key, inputs.value, score_mod=add_positions, scale=inputs.scale)


def _streamed(
    bench: Bench, shapes: VitShapes, kind: str, side: int, batch: int, about: dict[str, Any], work: dict[str, float]
) -> None:
    def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def random(*size: int) -> Tensor:
            return torch.randn(*size, device=bench.device, dtype=torch.float16)

        qkv = random(batch, shapes.grid, shapes.grid, 3 * shapes.hidden)
        table_h, table_w = (random(2 * side - 1, shapes.head_width) * 0.2 for _ in range(2))
        return qkv, random(3 * shapes.hidden), table_h, table_w

    def attention(half_sums: bool) -> Callable[[], Any]:
        qkv, bias, table_h, table_w = tensors()
        return lambda: streamed_attention(qkv, bias, table_h, table_w, shapes.heads, side, half_sums)

    def positions() -> Callable[[], Any]:
        qkv, _, table_h, table_w = tensors()
        return lambda: relative_positions(qkv, table_h, table_w, shapes.heads, side)

    name = f"{kind}: streamed, with its positions"
    bench.time(name, lambda: attention(False), shapes=about, precision="fp16", work=work, seconds=0.15)
    if bench.on_gpu:
        half = f"{name}, half sums"
        bench.time(half, lambda: attention(True), shapes=about, precision="fp16", work=work, seconds=0.15)
    bench.time(f"{kind}: positions alone", positions, shapes=about, precision="fp16", seconds=0.15)
