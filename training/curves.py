"""Training curves as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

matplotlib.use("Agg")
SMOOTHING = 100


def plot(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draws the losses and the first round's IoU of every step, each point the mean of up to 100 steps."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    width = max(1, min(SMOOTHING, len(history) // 10))
    steps = _smooth([entry["step"] for entry in history], width)
    for axes, names in (
        (left, ("loss", "mask_loss", "affinity_loss", "iou_error")),
        (right, ("iou_best", "iou_chosen")),
    ):
        for name in names:
            axes.plot(steps, _smooth([entry[name] for entry in history], width), label=name.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=110)


def _smooth(values: Sequence[float], width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.convolve(values, np.ones(width) / width, mode="valid")
