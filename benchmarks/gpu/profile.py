"""Profile of the fastest encoder and decoder, kernel by kernel."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.decoder import NO_MASK_INPUT, decoder_module
from benchmarks.gpu.encoder import BEST, encoder_inputs
from benchmarks.gpu.models import kit_model
from benchmarks.gpu.prompt_inputs import decoder_inputs
from benchmarks.gpu.vit import encoder_graph
from modeling.architectures import model_sizes

TOP = 20


def run(bench: Bench) -> None:
    """Profile the encoder at batch 4 and the decoder at 64 rows, and write the 20 slowest kernels."""
    model = kit_model(bench.model, bench.seed, bench.device)
    batch, rows = (4, 64) if bench.on_gpu else (1, 2)

    # Interpreted on a CPU, the fused formulation takes seconds.
    best = NO_MASK_INPUT if bench.on_gpu else "absorbed"

    def encoder() -> Callable[[], Any]:
        graph = encoder_graph(model, BEST)
        inputs = encoder_inputs(graph.image_size, batch, bench.device)
        return lambda: graph(*inputs)

    def decoder(formulation: str) -> Callable[[], Any]:
        graph = decoder_module(model, formulation, bench.device, "eager")
        inputs = decoder_inputs(model_sizes(model), rows, 1, bench.device)
        return lambda: graph(*inputs)

    targets: list[tuple[str, Callable[[], Callable[[], Any]]]] = [
        (f"encoder, {BEST}, eager, batch {batch}", encoder),
        (f"decoder, {best}, eager, {rows} rows", lambda: decoder(best)),
    ]
    for name, make in targets:
        bench.attempt({"name": name}, functools.partial(_profile, bench, name, make))


def _profile(bench: Bench, name: str, make: Callable[[], Callable[[], Any]]) -> None:
    task = make()
    runs = 3 if bench.on_gpu else 1
    activities = [ProfilerActivity.CUDA] if bench.on_gpu else [ProfilerActivity.CPU]
    if bench.on_gpu:
        task()
        task()
    with profile(activities=activities) as profiler:
        for _ in range(runs):
            task()
        if bench.on_gpu:
            torch.cuda.synchronize()
    rows = profiler.key_averages()
    clock = "self_device_time_total" if bench.on_gpu else "self_cpu_time_total"
    times = {row.key: float(getattr(row, clock)) for row in rows}
    counts = {row.key: int(row.count) for row in rows}
    total = sum(times.values())
    bench.write({"name": name, "kernels": sum(counts.values()) / runs, "total_ms": round(total / runs / 1e3, 4)})
    for key in sorted(times, key=lambda key: -times[key])[:TOP]:
        share = times[key] / total if total else 0.0
        bench.write(
            {
                "name": name,
                "kernel": key[:120],
                "calls": counts[key] / runs,
                "ms": round(times[key] / runs / 1e3, 4),
                "share": round(share, 4),
            }
        )
