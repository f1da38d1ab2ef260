"""FP8 products for the projections of the blocks: their rate, and their error against half precision."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.models import shapes_of

LARGEST = 448.0
"""Largest finite value of float8_e4m3fn."""

FP8 = torch.float8_e4m3fn


def run(bench: Bench) -> None:
    """Measure qkv and both products of the MLP, with scales per tensor and per row, against half precision."""
    shapes = shapes_of(bench.model)
    batch = 4 if bench.on_gpu else 1
    rows = shapes.tokens * batch
    for name, columns, inner, gelu in (
        ("qkv", 3 * shapes.hidden, shapes.hidden, False),
        ("mlp, first", shapes.mlp, shapes.hidden, False),
        ("mlp, second", shapes.hidden, shapes.mlp, True),
    ):
        for by_row in (False, True):
            about = {"name": name, "shapes": {"rows": rows, "columns": columns, "inner": inner}, "by_row": by_row}
            bench.attempt(about, partial(_compare, bench, about, gelu=gelu))


def _compare(bench: Bench, about: Mapping[str, object], *, gelu: bool) -> None:
    shapes = about["shapes"]
    by_row = bool(about["by_row"])
    assert isinstance(shapes, dict)
    rows, columns, inner = (int(shapes[name]) for name in ("rows", "columns", "inner"))
    activations = activations_of(rows, inner, bench.device, gelu=gelu)
    weight = torch.randn(columns, inner, device=bench.device, dtype=torch.float16) * inner**-0.5
    exact = activations.float() @ weight.float().t()
    first, second = quantised(activations, by_row=by_row), quantised(weight, by_row=by_row)
    for precision, answer in (("fp8", fp8_product(first, second)), ("fp16", activations @ weight.t())):
        cosine = F.cosine_similarity(answer.float().flatten(), exact.flatten(), dim=0)
        error = (answer.float() - exact).norm() / exact.norm()
        bench.write({**about, "precision": precision, "cosine": float(cosine), "relative_error": float(error)})

    def quantise_and_multiply() -> Tensor:
        return fp8_product(quantised(activations, by_row=by_row), second)

    flop = 2.0 * rows * columns * inner
    more = {"by_row": by_row, "work": {"flop": flop}, "seconds": 0.1}
    name = str(about["name"])
    bench.time(name, lambda: lambda: fp8_product(first, second), shapes=shapes, precision="fp8", **more)  # type: ignore[arg-type]
    bench.time(f"{name}, with quantising", lambda: quantise_and_multiply, shapes=shapes, precision="fp8", **more)  # type: ignore[arg-type]
    if not by_row:
        bench.time(name, lambda: lambda: activations @ weight.t(), shapes=shapes, precision="fp16", **more)  # type: ignore[arg-type]


def activations_of(rows: int, inner: int, device: str, *, gelu: bool) -> Tensor:
    """Create half `[rows, inner]` inputs as a projection sees them: normalised with a few large channels, or after a
    GELU."""
    values = torch.randn(rows, inner, device=device)
    if gelu:
        return F.gelu(values).half()
    channels = 1 + 9 * (torch.rand(inner, device=device) > 0.99)
    return (values * channels).half()


def quantised(values: Tensor, *, by_row: bool) -> tuple[Tensor, Tensor]:
    """Quantise to FP8. Returns the values and their scale, a scalar or `[rows, 1]`."""
    largest = values.abs().amax(dim=1, keepdim=True) if by_row else values.abs().amax()
    scale = (largest.float() / LARGEST).clamp(min=1e-12)
    return (values / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def fp8_product(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Compute `first · secondᵀ` with a half-precision result. A CPU multiplies the same values in single precision."""
    (a, scale_a), (b, scale_b) = first, second
    if a.device.type != "cuda":
        return ((a.float() * scale_a) @ (b.float() * scale_b).t()).half()
    if scale_a.dim():
        scale_b = scale_b.t().contiguous()
        # PyTorch implements per-row scales only for BF16 results.
        product: Tensor = torch._scaled_mm(a, b.t(), scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=True)
        return product
    scaled: Tensor = torch._scaled_mm(a, b.t(), scale_a, scale_b, out_dtype=torch.float16, use_fast_accum=True)
    return scaled


def fp8_task(device: str, rows: int, columns: int, inner: int) -> Callable[[], Tensor]:
    """Create a task that multiplies values that are already in FP8."""
    first = quantised(torch.randn(rows, inner, device=device), by_row=False)
    second = quantised(torch.randn(columns, inner, device=device), by_row=False)
    return lambda: fp8_product(first, second)
