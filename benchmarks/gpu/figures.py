"""The file of figures: one JSON object per line, flushed as soon as the figure is measured."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


class FigureFile:
    """Append lines to a file, also from several processes. Each line is one write.

    Args:
        path: created when the first line is written.
        common: fields that every line repeats, so that a line can be read alone.
    """

    def __init__(self, path: Path, common: Line) -> None:
        self.path = path
        self.common = dict(common)
        self.started = time.monotonic()

    def write(self, line: Line) -> None:
        """Append a line, flush it to disk, and print a short form to stdout."""
        line = {**line, "at_s": round(time.monotonic() - self.started, 1)}
        text = json.dumps({**line, **self.common}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
        print(" ".join(f"{name}={value}" for name, value in line.items()), flush=True)


def read_figures(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a file of figures."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def describe(device: str) -> dict[str, Any]:
    """Describe device, driver and versions. Initialises CUDA, so a process that forks later must not call it.

    Raises:
        RuntimeError: PyTorch cannot use a GPU, and `device` is one.
    """
    # Imported here, because figures are also read where PyTorch is not installed.
    import torch

    common: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "driver": _driver() if device == "cuda" else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if device == "cuda" else None,
            "triton": _version("triton"),
            "transformers": _version("transformers"),
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return common


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.splitlines()[0].strip() if answer.strip() else None


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
