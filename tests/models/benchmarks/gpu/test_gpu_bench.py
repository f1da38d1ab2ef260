"""Measuring one figure: its rates, and what becomes of a task that fails or comes too late."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import bench as bench_module
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figures import FigureFile, read_figures
from benchmarks.gpu.timing import Timing

SHAPES = {"batch": 4}


def made(tmp_path: Path, seconds: float = 60.0) -> Bench:
    """A bench on the processor."""
    file = FigureFile(tmp_path / "figures.jsonl", {"device": "a processor"})
    return Bench("encoder", "cpu", "tiny", 0, time.monotonic() + seconds, file)


def nothing() -> Callable[[], Any]:
    return lambda: None


def test_a_figure_has_median_quartiles_and_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Timing(median_ms=20.0, q1_ms=19.0, q3_ms=22.123456, runs=9, peak_memory_mib=None)
    monkeypatch.setattr(bench_module, "measure", lambda task, device, seconds: timing)
    work = {"images": 4.0, "flop": 2e12, "bytes": 1e9}
    measured = made(tmp_path).time("streamed", nothing, shapes=SHAPES, precision="fp16", work=work, mode="eager")
    [line] = read_figures(tmp_path / "figures.jsonl")
    assert measured == timing
    assert (line["median_ms"], line["q1_ms"], line["q3_ms"], line["runs"]) == (20.0, 19.0, 22.123, 9)
    assert (line["images_per_s"], line["tflops"], line["gb_per_s"]) == (200.0, 100.0, 50.0)
    assert (line["stage"], line["name"], line["shapes"], line["precision"], line["mode"], line["device"]) == (
        "encoder", "streamed", SHAPES, "fp16", "eager", "a processor",
    )  # fmt: skip


def test_a_task_is_run_in_inference_mode(tmp_path: Path) -> None:
    modes: list[bool] = []

    def task() -> None:
        modes.append(torch.is_inference_mode_enabled())

    made(tmp_path).time("task", lambda: task, shapes={}, precision="")
    assert modes == [True]


@pytest.mark.parametrize("where", ["making", "running"])
def test_a_task_that_fails_is_a_line_and_the_next_is_measured(tmp_path: Path, where: str) -> None:
    def fail() -> Any:
        raise RuntimeError("out of memory")

    bench = made(tmp_path)
    make = fail if where == "making" else lambda: fail
    assert bench.time("first", make, shapes=SHAPES, precision="fp16") is None
    assert bench.time("second", nothing, shapes=SHAPES, precision="fp16") is not None
    first, second = read_figures(tmp_path / "figures.jsonl")
    assert first["failed"].startswith("RuntimeError: out of memory (test_gpu_bench.py:")
    assert "median_ms" not in first
    assert second["median_ms"] >= 0


def test_after_the_deadline_figures_are_skipped(tmp_path: Path) -> None:
    bench = made(tmp_path, seconds=-1.0)
    ran: list[int] = []
    assert bench.time("late", lambda: lambda: ran.append(1), shapes=SHAPES, precision="fp16") is None
    [line] = read_figures(tmp_path / "figures.jsonl")
    assert line["skipped"] == "no time is left for this stage"
    assert line["shapes"] == SHAPES
    assert not ran
