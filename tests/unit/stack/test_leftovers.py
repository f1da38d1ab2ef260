"""What a run leaves is found by its mark, and ended; a test run that leaves something fails."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack import leftovers

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 30.0


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def run() -> Iterator[str]:
    mark = leftovers.new_run()
    yield mark
    leftovers.end(mark)


def start_orphan(run: str) -> int:
    """The id of a process whose parent has ended."""
    command = ["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"]
    environment = {**os.environ, leftovers.VARIABLE: run}
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def touch_memory(run: str) -> Path:
    path = leftovers.SHARED_MEMORY / f"{leftovers.triton_memory_prefix(run)}test"
    path.touch()
    return path


def test_processes_and_memory_of_a_run_and_of_runs_within_it_are_found(run: str) -> None:
    inner = f"{run}.1"
    orphans, memory = {start_orphan(run), start_orphan(inner)}, {touch_memory(run), touch_memory(inner)}
    assert set(leftovers.processes(run)) == orphans
    assert set(leftovers.shared_memory(run)) == memory


def test_nothing_of_another_run_is_ended(run: str) -> None:
    other = f"{run}0"
    process, memory = start_orphan(other), touch_memory(other)
    try:
        leftovers.end(run)
        assert set(leftovers.processes(other)) == {process}
        assert memory.exists()
    finally:
        leftovers.end(other)
    assert not leftovers.processes(other)
    assert not memory.exists()


def test_a_process_that_ends_in_time_is_not_killed(run: str, tmp_path: Path) -> None:
    program = f"trap 'sleep 0.2; touch {tmp_path / 'ended'}; exit' TERM; echo begun; while :; do sleep 0.01; done"
    environment = {**os.environ, leftovers.VARIABLE: run}
    with subprocess.Popen(["sh", "-c", program], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.terminate()
        leftovers.end(run, PATIENCE_SECONDS)
    assert (tmp_path / "ended").exists()


def test_a_run_ends_when_its_process_is_killed(run: str) -> None:
    program = (
        f"import time; from stack import leftovers\nwith leftovers.ended_with_this_process({run!r}, 0):\n"
        "    print('begun', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        memory = touch_memory(run)
        process.kill()
    eventually(lambda: not memory.exists())


TEST = """
import subprocess, sys, time
def test_leaves_a_process():
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    print("started", file=sys.__stdout__, flush=True)
    time.sleep({seconds})
"""


def pytest_on(file: Path, run: str, seconds: int) -> "subprocess.Popen[str]":
    file.write_text(TEST.format(seconds=seconds))
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-c", os.devnull, "-p", "tests.support.nothing_left"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(file.parent), str(file)]
    environment = {**os.environ, leftovers.VARIABLE: run}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_test_run_that_leaves_a_process_fails_and_ends_it(run: str, tmp_path: Path) -> None:
    process = pytest_on(tmp_path / "test_it.py", run, seconds=0)
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert "left behind: process sleep 600" in printed
    assert process.returncode == 1
    assert not leftovers.processes(run)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_test_run_that_is_killed_leaves_nothing(run: str, tmp_path: Path, number: signal.Signals) -> None:
    with pytest_on(tmp_path / "test_it.py", run, seconds=600) as process:
        assert process.stdout is not None
        assert any("started" in line for line in process.stdout)
        process.send_signal(number)
    eventually(lambda: not leftovers.processes(run))
