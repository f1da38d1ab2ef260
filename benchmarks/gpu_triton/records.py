"""Figures as lines of JSON, each flushed at once, so that an interrupted run keeps its results."""

import json
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

STAGE = "triton"
_PACKAGES = ("torch", "transformers", "numpy", "grpcio", "protobuf", "tritonclient", "cuda-bindings")


class Records:
    """Append lines to a file, each with the machine's description.

    Args:
        facts: fields of every line.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._path = path
        self._facts = facts

    def timed(self, name: str, seconds: Sequence[float], **fields: Any) -> None:
        """Write median and quartiles of timed rounds."""
        q1, median, q3 = (round(1000 * float(value), 4) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
        self.write(name, median_ms=median, q1_ms=q1, q3_ms=q3, rounds=len(seconds), **fields)

    def failed(self, name: str, reason: str) -> None:
        """Record a part that failed."""
        self.write(name, failed=reason)

    def skipped(self, name: str, reason: str) -> None:
        """Record a part that was skipped."""
        self.write(name, skipped=reason)

    def write(self, name: str, **fields: Any) -> None:
        """Write a line with these fields."""
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": STAGE, "name": name, **fields, **self._facts}) + "\n")


def machine_facts(device: str) -> dict[str, Any]:
    """Describe the device, its driver, the installed versions and the date."""
    name, driver = platform.processor() or platform.machine(), ""
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            answer = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20).stdout
            name, driver = (part.strip() for part in answer.splitlines()[0].split(","))
        except (OSError, ValueError, IndexError, subprocess.SubprocessError):
            name, driver = "unknown GPU", "unknown"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"device": name, "driver": driver, "versions": versions(), "date": date}


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect the figures."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
