"""Figures of one device, read from its files. The newest line of each figure counts."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.figures import read_figures

Figure = dict[str, Any]

RESULTS = Path("benchmarks/results")
MODEL = "vit_h"
"""The model shown in the tables. Lines of other models stay in the files."""

KIT, TRITON = "gpu-", "gpu-triton-"
_TRITON_STAGE = "triton"
_IDENTITY = ("stage", "name", "shapes", "precision", "mode", "compile_mode", "by_row", "weights", "kernel")
_RUN = "run"
# Lines of different kinds with the same name are different figures: a timing and an accuracy, for example.
_KINDS = ("median_ms", "cosine", "graphs_compiled_so_far")


class Results:
    """Figures of one device.

    Args:
        lines: lines of any number of runs, in the order in which they were written. A later line replaces an earlier
            one of the same figure.
    """

    def __init__(self, lines: Iterable[Figure]) -> None:
        lines = [line for line in lines if line.get("model", MODEL) == MODEL]
        self.runs = [line for line in lines if line.get("event") == "started"]
        newest: dict[str, Figure] = {}
        missing: dict[str, Figure] = {}
        run = 0
        for line in lines:
            run += line.get("event") == "started"
            if "event" in line or "name" not in line:
                continue
            line = {**line, _RUN: run}
            if "skipped" in line or "failed" in line:
                missing[_attempt(line)] = line
                continue
            if "kernels" in line:
                # A new profile replaces all kernels of the previous one.
                newest = {key: old for key, old in newest.items() if not _same_profile(old, line)}
            # Reinserted, so that figures are in the order of the newest run.
            key = _identity(line)
            newest.pop(key, None)
            newest[key] = line
        self.figures = list(newest.values())
        measured = {_attempt(figure) for figure in self.figures}
        self.missing = [line for attempt, line in missing.items() if attempt not in measured]

    def of(self, stage: str, **fields: Any) -> list[Figure]:
        """Select the figures of a stage that have these fields."""
        return [
            figure
            for figure in self.figures
            if figure.get("stage") == stage and all(figure.get(name) == value for name, value in fields.items())
        ]

    def one(self, stage: str, name: str, **fields: Any) -> Figure | None:
        """Return the newest timing of a name with these fields, or None."""
        found = [figure for figure in self.of(stage, name=name, **fields) if "median_ms" in figure]
        return found[-1] if found else None

    def facts(self, stages: Sequence[str]) -> str:
        """Describe device, driver, versions and date of the figures of these stages, separately for each run."""
        told = (_facts(figure) for figure in self.figures if figure.get("stage") in stages)
        return "; ".join(dict.fromkeys(told))


def newest_run(figures: Sequence[Figure]) -> list[Figure]:
    """Select the figures of the newest run, for figures that are only comparable within a run."""
    newest = max((figure[_RUN] for figure in figures), default=0)
    return [figure for figure in figures if figure[_RUN] == newest]


def read_results(folder: Path) -> list[Results]:
    """Read `gpu-<device>.jsonl` and `gpu-triton-<device>.jsonl` of all devices in a folder, sorted by device."""
    devices: dict[str, list[Figure]] = {}
    for path in sorted(folder.glob(f"{KIT}*.jsonl")):
        prefix = TRITON if path.name.startswith(TRITON) else KIT
        devices.setdefault(path.stem.removeprefix(prefix), []).extend(read_figures(path))
    return [Results(lines) for _, lines in sorted(devices.items())]


def add_figures(source: Path, folder: Path) -> list[Path]:
    """Append the lines of a run to the files of their devices, and return these files.

    Raises:
        ValueError: no line was measured on a GPU.
    """
    parts: dict[Path, list[Figure]] = {}
    for line in read_figures(source):
        if line.get("driver"):
            prefix = TRITON if line.get("stage") == _TRITON_STAGE else KIT
            parts.setdefault(folder / f"{prefix}{device_name(line['device'])}.jsonl", []).append(line)
    if not parts:
        raise ValueError(f"{source} has no figures of a GPU")
    folder.mkdir(parents=True, exist_ok=True)
    for path, lines in parts.items():
        with path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    return list(parts)


def device_name(device: str) -> str:
    """Convert a device's name for use in a file name: "NVIDIA H100 80GB HBM3" becomes `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def _identity(line: Figure) -> str:
    kind = next((name for name in _KINDS if name in line), "")
    return json.dumps([kind, *(line.get(name) for name in _IDENTITY)], sort_keys=True)


def _attempt(line: Figure) -> str:
    """Identify a figure by the fields that lines of failures have too."""
    return json.dumps([line.get(name) for name in ("stage", "name", "mode", "compile_mode")])


def _same_profile(figure: Figure, header: Figure) -> bool:
    return all(figure.get(name) == header.get(name) for name in ("stage", "name"))


def _facts(figure: Figure) -> str:
    versions = figure.get("versions", {})
    named: Iterator[str] = (
        f"{label} {versions[key]}"
        for key, label in (("torch", "PyTorch"), ("triton", "Triton language"), ("tritonclient", "tritonclient"))
        if versions.get(key)
    )
    return ", ".join([figure["device"], f"driver {figure['driver']}", *named, figure.get("date", "no date")])
