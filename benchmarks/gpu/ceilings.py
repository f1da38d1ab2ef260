"""Ceilings: the highest rates of matrix products and copies on this device."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Make
from benchmarks.gpu.fp8 import fp8_task
from benchmarks.gpu.models import VitShapes, shapes_of

MIB = 1 << 20
BATCHES = (1, 4, 8)


def run(bench: Bench) -> None:
    """Measure matrix products in FP16, BF16 and FP8, then copies on the device and between host and device."""
    side = 8192 if bench.on_gpu else 256
    for precision, make in products(bench.device, side, side, side):
        _product(bench, precision, make, side, side, side)
    for rows, columns, inner in vit_products(shapes_of(bench.model), BATCHES if bench.on_gpu else (1,)):
        for precision, make in products(bench.device, rows, columns, inner):
            _product(bench, precision, make, rows, columns, inner)
    _copies(bench)


def vit_products(shapes: VitShapes, batches: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """List (rows, columns, inner) of a block's four products; the first two also with windows padded before them."""
    hidden, mlp = shapes.hidden, shapes.mlp
    for batch in batches:
        for tokens in (shapes.tokens, shapes.padded_tokens):
            yield tokens * batch, 3 * hidden, hidden
            yield tokens * batch, hidden, hidden
        yield shapes.tokens * batch, mlp, hidden
        yield shapes.tokens * batch, hidden, mlp


def products(device: str, rows: int, columns: int, inner: int) -> Iterator[tuple[str, Make]]:
    """Measure one product `[rows, inner] × [inner, columns]` in each precision."""

    def plain(dtype: torch.dtype) -> Make:
        def make() -> Callable[[], Tensor]:
            first = torch.randn(rows, inner, device=device, dtype=dtype)
            second = torch.randn(columns, inner, device=device, dtype=dtype).t()
            return lambda: first @ second

        return make

    yield "fp16", plain(torch.float16)
    yield "bf16", plain(torch.bfloat16)
    yield "fp8", lambda: fp8_task(device, rows, columns, inner)


def _product(bench: Bench, precision: str, make: Make, rows: int, columns: int, inner: int) -> None:
    shapes = {"rows": rows, "columns": columns, "inner": inner}
    flop = 2.0 * rows * columns * inner
    bench.time("matrix product", make, shapes=shapes, precision=precision, work={"flop": flop}, seconds=0.1)


def _copies(bench: Bench) -> None:
    large = 1024 * MIB if bench.on_gpu else MIB
    device = bench.device

    def copy(source: str, target: str, nbytes: int, *, pinned: bool) -> Make:
        def tensor(place: str) -> Tensor:
            if place == "device":
                return torch.randint(0, 255, (nbytes,), dtype=torch.uint8, device=device)
            return torch.ones(nbytes, dtype=torch.uint8, pin_memory=pinned and bench.on_gpu)

        def make() -> Callable[[], Tensor]:
            first, second = tensor(source), tensor(target)
            return lambda: second.copy_(first, non_blocking=pinned)

        return make

    bench.time(
        "copy, device to device", copy("device", "device", large, pinned=False),
        shapes={"mib": large // MIB}, precision="bytes", work={"bytes": 2.0 * large},
    )  # fmt: skip
    # An embedding of SAM's size has 2 MiB, and the masks of one prompt in float32 have 1 MiB.
    for nbytes in (large // 4, 2 * MIB, MIB):
        for pinned in (True, False):
            for source, target in (("host", "device"), ("device", "host")):
                bench.time(
                    f"copy, {source} to {target}", copy(source, target, nbytes, pinned=pinned),
                    shapes={"mib": nbytes / MIB, "pinned": pinned}, precision="bytes", work={"bytes": float(nbytes)},
                    seconds=0.1,
                )  # fmt: skip
