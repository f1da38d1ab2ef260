"""The end-to-end benchmark, on the CPU with the small model: every part gives its figures and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_triton.session import ProcessSession
from stack import leftovers
from stack.triton_server import TritonInstallation

ROOT = Path(__file__).parents[3]
SHARED_MEMORY = Path("/dev/shm")
FIGURES = {
    "bare Triton by shared_memory",
    "bare Triton, one request made directly",
    "warm Segment by shared_memory",
    "warm Segment by wire",
    "bare Triton by shared_memory, in turns with Segment",
    "warm Segment by shared_memory, 16 callers",
    "warm Segment by wire, 16 callers",
    "bare Triton by shared_memory, 16 callers",
    "cold EmbedImage by shared_memory",
    "cold EmbedImage by wire",
    "cold Segment by shared_memory",
    "cold Segment by wire",
    "bare encoder by shared_memory",
}


def command(out: Path, budget: float) -> list[str]:
    """The benchmark with what is installed here, as short as it can be."""
    flags = ["--device", "cpu", "--model", "tiny", "--part-seconds", "0", "--carry", str(out.parent / "none")]
    return [sys.executable, "-m", "benchmarks.gpu_triton", "--out", str(out), "--budget", str(budget), *flags]


def lines(out: Path) -> list[dict[str, Any]]:
    """The records that were written."""
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_part_gives_figures_on_the_cpu(installation: TritonInstallation, tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    run = leftovers.new_run()
    environment = {**os.environ, leftovers.VARIABLE: run}
    done = subprocess.run(command(out, 240), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = lines(out)
    assert [record for record in records if "failed" in record or "skipped" in record] == []
    figures = {record["name"]: record for record in records if "median_ms" in record}
    assert set(figures) == FIGURES
    for record in figures.values():
        assert record["q1_ms"] <= record["median_ms"] <= record["q3_ms"]
        assert record["rounds"] > 0
        assert record["precision"] == "fp32"
        assert record["versions"]["torch"]
    assert figures["warm Segment by shared_memory, 16 callers"]["requests_per_second"] > 0
    assert not leftovers.shared_memory(run)
    assert not leftovers.processes(run)


def test_parts_beyond_the_budget_are_stopped_and_reported(installation: TritonInstallation, tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    started = time.monotonic()
    done = subprocess.run(command(out, 18), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert time.monotonic() - started < 40
    assert any("failed" in record for record in lines(out))


def test_a_session_ends_with_all_its_processes(tmp_path: Path) -> None:
    # The child is in a process session of its own and outlives the program.
    script = f"setsid sleep 600 & echo $! >{tmp_path / 'child'}; sleep 600; true"
    with ProcessSession(["bash", "-c", script], os.environ) as session:
        assert session.wait(time.monotonic() + 1.0) is None
        segment = SHARED_MEMORY / f"{leftovers.triton_memory_prefix(session.run)}1"
        segment.touch()
        assert int((tmp_path / "child").read_text()) in leftovers.processes(session.run)
    assert not segment.exists()
    assert session.wait(time.monotonic() + 1.0) == -signal.SIGTERM
    assert not leftovers.processes(session.run)
