"""Tables of single operations: matrix products, copies, FP8, attention, and the kernels of whole models."""

import re

from benchmarks.gpu_tables.encoder import SQUARE
from benchmarks.gpu_tables.markdown import number, part, table
from benchmarks.gpu_tables.results import Figure, Results, newest_run

PRECISIONS = ("fp16", "bf16", "fp8")
SHOWN_ROWS = (SQUARE["rows"], 4 * 4096, 4 * 4900)
"""Rows of ViT-H's products at batch 4, for unpadded and padded windows. The files contain other batches too."""
KERNELS = 6
KERNEL_CHARACTERS = 60


def ceilings_table(results: Results) -> str:
    """Render the rates of matrix products, then of copies."""
    products: dict[tuple[int, int, int], dict[str, str]] = {}
    copies: dict[tuple[str, float], dict[bool | None, str]] = {}
    for figure in results.of("ceilings"):
        if "tflops" in figure and figure["shapes"]["rows"] in SHOWN_ROWS:
            shape = tuple(int(figure["shapes"][name]) for name in ("rows", "inner", "columns"))
            products.setdefault(shape, {})[figure["precision"]] = number(figure["tflops"])  # type: ignore[arg-type]
        elif "gb_per_s" in figure:
            key = (figure["name"].removeprefix("copy, "), float(figure["shapes"]["mib"]))
            copies.setdefault(key, {})[figure["shapes"].get("pinned")] = number(figure["gb_per_s"])
    if not products and not copies:
        return ""
    product_rows = [
        [" × ".join(str(size) for size in shape), *(rates.get(precision, "") for precision in PRECISIONS)]
        for shape, rates in products.items()
    ]
    copy_rows = [
        [name, f"{mib:g}", rates.get(True) or rates.get(None, ""), rates.get(False, "")]
        for (name, mib), rates in copies.items()
    ]
    return "\n\n".join(
        [
            table(["matrix product, TFLOP/s", *(precision.upper() for precision in PRECISIONS)], product_rows),
            table(["copy, GB/s", "MiB", "pinned or device memory", "pageable memory"], copy_rows),
        ]
    )


def fp8_table(results: Results) -> str:
    """Render the rates of FP8 products and their error against float32."""
    rows = []
    for figure in (figure for figure in results.of("fp8", precision="fp8") if "cosine" in figure):
        by_row, shapes, name = figure["by_row"], figure["shapes"], figure["name"]
        rates = [
            results.one("fp8", name, shapes=shapes, precision="fp16"),
            results.one("fp8", name, shapes=shapes, precision="fp8", by_row=by_row),
            results.one("fp8", f"{name}, with quantising", shapes=shapes, precision="fp8", by_row=by_row),
        ]
        told = [number(rate["tflops"]) if rate else "" for rate in rates]
        scales = "per row" if by_row else "per tensor"
        rows.append([name, scales, *told, part(figure["cosine"]), f"{figure['relative_error']:.3f}"])
    head = [
        "product", "scales", "FP16, TFLOP/s", "FP8, TFLOP/s", "FP8 with quantisation, TFLOP/s", "cosine",
        "relative error",
    ]  # fmt: skip
    return table(head, rows) if rows else ""


def attention_table(results: Results) -> str:
    """Render the milliseconds of attention, without the projections."""
    times: dict[str, dict[str, str]] = {}
    figures = [figure for figure in results.of("attention") if "median_ms" in figure]
    for figure in figures:
        kind, _, name = figure["name"].partition(": ")
        times.setdefault(_without_widths(name), {})[kind] = number(figure["median_ms"])
    kinds = list(dict.fromkeys(figure["name"].partition(": ")[0] for figure in figures))
    rows = [[name, *(milliseconds.get(kind, "") for kind in kinds)] for name, milliseconds in times.items()]
    if not rows:
        return ""
    batch = figures[0]["shapes"]["batch"]
    said = f"Milliseconds of one layer at batch {batch}, all heads of width 80, without the projections."
    return f"{said}\n\n{table(['attention', *kinds], rows)}"


def kernels_table(results: Results) -> str:
    """Render the slowest kernels of each profile in the newest run."""
    texts = []
    for header in newest_run([figure for figure in results.of("profile") if "kernels" in figure]):
        rows = [_kernel(figure) for figure in results.of("profile", name=header["name"]) if "kernel" in figure]
        said = f"{header['name']}: {number(header['total_ms'])} ms in {header['kernels']:.0f} kernels."
        texts.append(f"{said}\n\n{table(['kernel', 'calls', 'ms', 'share'], rows[:KERNELS])}")
    return "\n\n".join(texts)


def _kernel(figure: Figure) -> list[str]:
    name = figure["kernel"]
    short = name if len(name) <= KERNEL_CHARACTERS else f"{name[:KERNEL_CHARACTERS]}…"
    return [f"`{short}`", f"{figure['calls']:.0f}", number(figure["ms"]), f"{figure['share']:.1%}"]


def _without_widths(name: str) -> str:
    """Remove the widths, which differ between windows and the whole grid, so that both share a row."""

    def told(match: re.Match[str]) -> str:
        return "folded, values widened" if match[1] == match[2] else "folded"

    return re.sub(r"(\d+)/(\d+)", told, name)
