"""The file of figures: whole lines, at once, from several processes."""

import json
import multiprocessing
from pathlib import Path

import pytest

from benchmarks.gpu.figures import FigureFile, read_figures

PROCESSES, LINES = 4, 50


def write_many(path: Path, process: int) -> None:
    """Write lines of different lengths from a process of its own."""
    file = FigureFile(path, {"device": "a device"})
    for number in range(LINES):
        file.write({"process": process, "number": number, "text": "x" * (500 * process + number)})


def test_a_line_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    file = FigureFile(path, {"device": "a device", "model": "tiny"})
    for count in (1, 2):
        file.write({"stage": "encoder", "number": count})
        lines = path.read_text().splitlines()
        assert len(lines) == count
        line = json.loads(lines[-1])
        assert line.pop("at_s") >= 0
        assert line == {"stage": "encoder", "number": count, "device": "a device", "model": "tiny"}


def test_a_line_is_shown_without_the_fields_that_all_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FigureFile(tmp_path / "figures.jsonl", {"device": "a device"}).write({"stage": "encoder", "median_ms": 1.5})
    shown = capsys.readouterr().out
    assert "stage=encoder median_ms=1.5" in shown
    assert "a device" not in shown


def test_processes_append_to_one_file_without_mixing_lines(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(path, number)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    figures = read_figures(path)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    for number in range(PROCESSES):
        assert [line["number"] for line in figures if line["process"] == number] == list(range(LINES))


def test_reading_skips_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    path.write_text('{"name": "one"}\n\n{"name": "two"}\n')
    assert read_figures(path) == [{"name": "one"}, {"name": "two"}]
