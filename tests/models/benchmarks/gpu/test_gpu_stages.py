"""Stages in processes of their own: whatever one does, the run says so and goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.gpu import stages
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figures import FigureFile, read_figures
from benchmarks.gpu.plan import Stage
from benchmarks.gpu.stages import run_stages

# Python 3.12 and newer warn of any fork of a process with threads; the child uses none of them.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

BENCH = {"device": "cpu", "model": "tiny", "seed": 0}
AFTER = "fake_after"


def good(bench: Bench) -> None:
    bench.write({"name": "a figure", "deadline_in": bench.deadline - time.monotonic()})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Run a fake stage and a good one after it; returns the lines."""
    monkeypatch.setattr(stages, "GRACE_SECONDS", 0.5)

    def run_both(part: Callable[[Bench], None], least: float = 0.0, most: float = 20.0) -> list[dict[str, Any]]:
        for name, function in (("fake_stage", part), (AFTER, good)):
            module = ModuleType(f"benchmarks.gpu.{name}")
            module.run = function  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
        file = FigureFile(tmp_path / "figures.jsonl", {})
        run_stages([Stage("fake_stage", least, most), Stage(AFTER, 0.0, 20.0)], file, 60.0, BENCH)
        return read_figures(tmp_path / "figures.jsonl")

    return run_both


def outcome(lines: list[dict[str, Any]], stage: str = "fake_stage") -> dict[str, Any]:
    [line] = [line for line in lines if line["stage"] == stage and "event" in line]
    return line


def after_ran(lines: list[dict[str, Any]]) -> bool:
    return outcome(lines, AFTER)["event"] == "finished" and any(line.get("name") == "a figure" for line in lines)


def test_a_stage_that_raises_leaves_its_trace(run: Callable[..., list[dict[str, Any]]]) -> None:
    def fail(bench: Bench) -> None:
        bench.write({"name": "before it"})
        raise ValueError("wrong weights")

    lines = run(fail)
    assert lines[0]["name"] == "before it"
    assert lines[1]["failed"] == "ValueError: wrong weights"
    assert "raise ValueError" in lines[1]["trace"]
    assert outcome(lines)["event"] == "ended with exit code 1"
    assert after_ran(lines)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(lambda: os._exit(7), 7, id="exit"),
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGKILL), -9, id="kill"),
    ],
)
def test_a_stage_that_ends_hard_does_not_end_the_run(
    run: Callable[..., list[dict[str, Any]]], end: Callable[[], None], code: int
) -> None:
    lines = run(lambda bench: end())
    assert outcome(lines)["event"] == f"ended with exit code {code}"
    assert after_ran(lines)


def test_a_stage_that_hangs_is_stopped_with_its_children(
    run: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    def hang(bench: Bench) -> None:
        child = subprocess.Popen(["sleep", "300"])
        (tmp_path / "child").write_text(str(child.pid))
        time.sleep(300)

    lines = run(hang, most=1.5)
    assert outcome(lines)["event"] == "stopped after 2 s"
    assert outcome(lines)["seconds"] < 10
    assert not lives(int((tmp_path / "child").read_text()))
    assert after_ran(lines)


def test_children_of_a_stage_that_finished_are_ended(run: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    def leave_one(bench: Bench) -> None:
        (tmp_path / "child").write_text(str(subprocess.Popen(["sleep", "300"]).pid))

    lines = run(leave_one)
    assert outcome(lines)["event"] == "finished"
    assert not lives(int((tmp_path / "child").read_text()))


def test_a_stage_for_which_too_little_is_left_is_skipped(run: Callable[..., list[dict[str, Any]]]) -> None:
    lines = run(good, least=1000.0)
    assert outcome(lines)["event"] == "skipped"
    assert outcome(lines)["reason"].endswith("s are left, and it needs 1000")
    assert after_ran(lines)


def test_a_stage_may_take_its_own_limit_or_what_is_left(run: Callable[..., list[dict[str, Any]]]) -> None:
    lines = run(good, most=5.0)
    limits = [line["deadline_in"] for line in lines if "deadline_in" in line]
    assert 3 < limits[0] <= 5
    assert 5 < limits[1] <= 20


def lives(process: int) -> bool:
    """Whether a process still runs a second later; what was killed may wait to be collected."""
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            return False
        if state in "ZX":
            return False
        time.sleep(0.05)
    return True
