"""Tables of calls through the gateway and Triton."""

from benchmarks.gpu_tables.markdown import number, table
from benchmarks.gpu_tables.results import Results

LEAST_RUNS = 20
"""Counters over fewer executions are not shown."""


def triton_table(results: Results) -> str:
    """Render the calls end to end, then Triton's statistics."""
    calls = [figure for figure in results.of("triton") if "median_ms" in figure]
    rows = [
        [
            figure["name"].replace("shared_memory", "shared memory"),
            number(figure["median_ms"]),
            f"{number(figure['q1_ms'])} to {number(figure['q3_ms'])}",
            number(figure["requests_per_second"]) if "requests_per_second" in figure else "",
        ]
        for figure in calls
    ]
    if not rows:
        return ""
    said = (
        "Triton's Python backend runs the models with PyTorch: the graphs as exported today, captured as CUDA graphs. "
        "A warm call has one prompt on an image whose embedding the gateway has cached; a cold one has a new image."
    )
    counters = [
        [figure["name"].removesuffix(" in Triton").replace("shared_memory", "shared memory"), *_counted(figure)]
        for figure in results.of("triton")
        if figure.get("runs", 0) >= LEAST_RUNS
    ]
    head = ["in Triton, mean per request", "executions", "rows per execution", "queue, ms", "model, ms"]
    parts = [said, table(["call", "median, ms", "quartiles", "requests/s"], rows)]
    return "\n\n".join([*parts, table(head, counters)] if counters else parts)


def _counted(figure: dict[str, float]) -> list[str]:
    times = (number(figure[name]) for name in ("queue_mean_ms", "compute_infer_mean_ms"))
    return [f"{figure['runs']:,.0f}", f"{figure['rows_per_run']:.2f}", *times]
