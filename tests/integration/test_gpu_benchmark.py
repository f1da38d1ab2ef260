"""The GPU kit as a command: every stage runs on the CPU with a small model, and without a GPU the command says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.figures import read_figures
from benchmarks.gpu.plan import STAGES

ROOT = Path(__file__).parents[2]
BUDGET = 400
"""Seconds; an idle machine of two cores needs a quarter of them."""


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command where nothing but the code is at hand."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *flags],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(BUDGET + 60)
def test_every_stage_runs_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    done = run("--budget", str(BUDGET), "--device", "cpu", "--model", "tiny", "--out", str(out))
    assert done.returncode == 0, done.stderr
    lines = read_figures(out)
    assert [line for line in lines if "failed" in line or "skipped" in line] == []
    ends = {line["stage"]: line["event"] for line in lines if "event" in line and "stage" in line}
    assert ends == {stage.name: "finished" for stage in STAGES}
    timed = [line for line in lines if "median_ms" in line]
    assert {line["stage"] for line in timed} == {stage.name for stage in STAGES} - {"parity", "profile"}
    assert all(0 < line["q1_ms"] <= line["median_ms"] <= line["q3_ms"] for line in timed)
    assert all(line["device"] and line["versions"]["torch"] and line["model"] == "tiny" for line in lines)
    # Half precision on random weights: a wrong formulation is nowhere near.
    ious = [line["iou_mean"] for line in lines if "iou_mean" in line]
    assert ious
    assert min(ious) > 0.99


def test_without_a_gpu_the_command_fails_with_an_explanation(tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    done = run("--budget", "60", "--out", str(out), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "PyTorch cannot use a GPU here" in done.stderr
    assert not out.exists()


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    done = run("--budget", "60", "--out", str(tmp_path / "figures.jsonl"), "--stages", "encoder,nothing")
    assert done.returncode == 2
    assert "unknown stages: nothing" in done.stderr


def test_a_folder_that_is_not_there_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    done = run("--budget", "60", "--out", str(tmp_path / "missing" / "figures.jsonl"), "--device", "cpu")
    assert done.returncode == 2
    assert "missing does not exist; create it first" in done.stderr


def test_a_budget_of_zero_is_refused(tmp_path: Path) -> None:
    done = run("--budget", "0", "--out", str(tmp_path / "figures.jsonl"))
    assert done.returncode == 2
    assert "--budget 0 is not above 0" in done.stderr
