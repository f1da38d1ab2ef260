"""Tables of single operations: matrix products and copies, FP8, attention, and kernels of whole models."""

import re

from benchmarks.gpu_tables.encoder import SQUARE
from benchmarks.gpu_tables.markdown import number, part, table
from benchmarks.gpu_tables.results import Figure, Results, newest_run

PRECISIONS = ("fp16", "bf16", "fp8")
SHOWN_ROWS = (SQUARE["rows"], 4 * 4096, 4 * 4900)
"""ViT-H's products at batch 4, with windows as they are and filled up; the files have other batches."""
KERNELS = 6
KERNEL_CHARACTERS = 60


def ceilings_table(results: Results) -> str:
    """Rates of products, then of copies."""
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
            table(["product, TFLOP/s", *(precision.upper() for precision in PRECISIONS)], product_rows),
            table(["copy, GB/s", "MiB", "pinned, or on the device", "pageable"], copy_rows),
        ]
    )


def fp8_table(results: Results) -> str:
    """Rates of FP8 products, and how far they are from single precision."""
    rows = []
    for figure in (figure for figure in results.of("fp8", precision="fp8") if "cosine" in figure):
        by_row, shapes, name = figure["by_row"], figure["shapes"], figure["name"]
        rates = [
            results.one("fp8", name, shapes=shapes, precision="fp16"),
            results.one("fp8", name, shapes=shapes, precision="fp8", by_row=by_row),
            results.one("fp8", f"{name}, with quantising", shapes=shapes, precision="fp8", by_row=by_row),
        ]
        told = [number(rate["tflops"]) if rate else "" for rate in rates]
        scales = "by row" if by_row else "one"
        rows.append([name, scales, *told, part(figure["cosine"]), f"{figure['relative_error']:.3f}"])
    head = ["product", "scales", "FP16, TFLOP/s", "FP8", "FP8, with quantising", "cosine", "relative error"]
    return table(head, rows) if rows else ""


def attention_table(results: Results) -> str:
    """Milliseconds of attention between the projections."""
    times: dict[str, dict[str, str]] = {}
    figures = [figure for figure in results.of("attention") if "median_ms" in figure]
    for figure in figures:
        kind, _, name = figure["name"].partition(": ")
        times.setdefault(_without_widths(name), {})[kind] = number(figure["median_ms"])
    kinds = list(dict.fromkeys(figure["name"].partition(": ")[0] for figure in figures))
    rows = [[name, *(milliseconds.get(kind, "") for kind in kinds)] for name, milliseconds in times.items()]
    if not rows:
        return ""
    said = f"Milliseconds at batch {figures[0]['shapes']['batch']}, of one layer; all heads, of width 80."
    return f"{said}\n\n{table(['attention', *kinds], rows)}"


def kernels_table(results: Results) -> str:
    """The kernels that take longest in each profile of the newest run."""
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
    """Widths differ between windows and the whole grid; the table has one row for both."""

    def told(match: re.Match[str]) -> str:
        return "folded, values widened" if match[1] == match[2] else "folded"

    return re.sub(r"(\d+)/(\d+)", told, name)
