"""Tables of the encoder."""

from benchmarks.gpu_tables.markdown import number, table
from benchmarks.gpu_tables.results import Figure, Results

SQUARE = {"rows": 8192, "columns": 8192, "inner": 8192}
BATCH = 4
"""Batch size at which formulations are compared."""
COMPILED = "compiled, CUDA graph"
RIVALS = {"bias": "compiled bias", "segment-anything-fast": "segment-anything-fast"}
"""Baseline formulations, and their names in column headings. Baselines are compiled block by block."""


def ceiling(results: Results, precision: str = "fp16") -> float | None:
    """Return the TFLOP/s of a matrix product of 8192³."""
    figure = results.one("ceilings", "matrix product", precision=precision, shapes=SQUARE)
    return None if figure is None else float(figure["tflops"])


def rival(results: Results, formulation: str) -> float | None:
    """Return the images per second of a baseline at batch 4, compiled in the fastest way that was measured."""
    rates = [
        float(figure["images_per_s"])
        for figure in encoder_figures(results)
        if figure["name"] == formulation and figure["mode"] == COMPILED and figure["shapes"]["batch"] == BATCH
    ]
    return max(rates, default=None)


def encoder_figures(results: Results) -> list[Figure]:
    """Select the timings of whole encoders."""
    return [figure for figure in results.of("encoder") if "images_per_s" in figure]


def best_encoder(results: Results, batch: int | None = None) -> Figure | None:
    """Return the fastest encoder in half precision, at one batch size or at any."""
    fitting = [
        figure
        for figure in encoder_figures(results)
        if figure["precision"] == "fp16" and batch in (None, figure["shapes"]["batch"])
    ]
    return max(fitting, key=lambda figure: float(figure["images_per_s"]), default=None)


def mode_of(figure: Figure) -> str:
    """Return the mode, with the compiler's mode if it is not the default."""
    compile_mode = figure.get("compile_mode")
    return f"{figure['mode']}, {compile_mode}" if compile_mode else str(figure["mode"])


def encoder_table(results: Results) -> str:
    """Render all formulations at one batch size, fastest first, then the fastest formulation at all batch sizes."""
    figures = [figure for figure in encoder_figures(results) if figure["shapes"]["batch"] == BATCH]
    if not figures:
        return ""
    top = ceiling(results)
    rivals = {name: rival(results, name) for name in RIVALS}
    head = [
        "formulation", "mode", "images/s", "ms per batch (quartiles)", "share of ceiling",
        *(f"ratio to {label}" for label in RIVALS.values()),
    ]  # fmt: skip
    rows = []
    for figure in sorted(figures, key=lambda figure: -float(figure["images_per_s"])):
        rate = float(figure["images_per_s"])
        share = "" if top is None else f"{float(figure['tflops']) / top:.0%}"
        ratios = ["" if other is None else f"{rate / other:.2f}" for other in rivals.values()]
        name = figure["name"] if figure["precision"] == "fp16" else f"{figure['name']} ({figure['precision']})"
        quartiles = f"{number(figure['median_ms'])} ({number(figure['q1_ms'])} to {number(figure['q3_ms'])})"
        rows.append([name, mode_of(figure), number(rate), quartiles, share, *ratios])
    said = f"Batch {BATCH}, half precision."
    if top is not None:
        said += f" The ceiling is the rate of a matrix product of 8192³ in FP16, {number(top)} TFLOP/s, "
        said += f"divided by {_work(results)}."
    return "\n\n".join(filter(None, [said, table(head, rows), _by_batch(results), _missing(results)]))


def _work(results: Results) -> str:
    counted = [figure for figure in results.of("encoder", name="counted work") if "tflop_per_image" in figure]
    return f"the {counted[-1]['tflop_per_image']:.2f} TFLOP of an image" if counted else "the counted work of an image"


def _by_batch(results: Results) -> str:
    best = best_encoder(results)
    if best is None:
        return ""
    same = [figure for figure in encoder_figures(results) if figure["name"] == best["name"]]
    batches = sorted({int(figure["shapes"]["batch"]) for figure in same})
    rates = {(mode_of(figure), figure["shapes"]["batch"]): number(figure["images_per_s"]) for figure in same}
    modes = dict.fromkeys(mode_of(figure) for figure in same)
    rows = [[mode, *(rates.get((mode, batch), "") for batch in batches)] for mode in modes]
    head = [f"{best['name']}, images/s", *(f"batch {batch}" for batch in batches)]
    return table(head, rows)


def _missing(results: Results) -> str:
    lines = [line for line in results.missing if line.get("stage") == "encoder"]
    told = [f"{line['name']}, {line.get('mode')} ({line.get('skipped') or line.get('failed')})" for line in lines]
    return f"Not measured: {'; '.join(told)}." if told else ""
