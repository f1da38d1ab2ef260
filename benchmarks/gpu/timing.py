"""Timing on a device: with CUDA events on a GPU, with the clock on a CPU."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Task = Callable[[], Any]

WARM_UP_RUNS = 3
MAX_RUNS = 60
MIN_RUNS = 5
SECONDS = 0.5
"""Seconds of timed runs per figure. A slow task gets at least `MIN_RUNS` runs."""


class Timing(NamedTuple):
    """Milliseconds per run over `runs` timed runs, and the peak memory allocated during them."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int
    peak_memory_mib: float | None


def measure(task: Task, device: str, seconds: float = SECONDS) -> Timing:
    """Time a task after a warm-up.

    On a GPU all runs are queued before any is waited for, so that a run's time is the GPU's and not that of the
    interpreter, unless launching takes longer than computing.
    """
    return _on_gpu(task, seconds) if device == "cuda" else _on_cpu(task)


def _on_gpu(task: Task, seconds: float) -> Timing:
    for _ in range(WARM_UP_RUNS - 1):
        task()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    task()
    torch.cuda.synchronize()
    once = max(time.perf_counter() - start, 1e-6)
    runs = min(MAX_RUNS, max(MIN_RUNS, int(seconds / once)))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for first, last in events:
        first.record()
        task()
        last.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / (1 << 20)
    return _timing([first.elapsed_time(last) for first, last in events], peak)


def _on_cpu(task: Task) -> Timing:
    # On a CPU the run only checks that the code works: one run, without a warm-up.
    start = time.perf_counter()
    task()
    return _timing([(time.perf_counter() - start) * 1e3] * 2, None)


def _timing(milliseconds: list[float], peak: float | None) -> Timing:
    q1, median, q3 = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median, q1, q3, len(milliseconds), peak)
