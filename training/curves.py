"""Plots of training curves and calibration."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

matplotlib.use("Agg")
SMOOTHING = 100


def plot(history: Sequence[dict[str, float]], path: Path) -> None:
    """Plot the losses and the first prompts' IoU of every step; each point is the mean of up to 100 steps."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    width = max(1, min(SMOOTHING, len(history) // 10))
    steps = _smooth([entry["step"] for entry in history], width)
    for axes, names in (
        (left, ("loss", "mask_loss", "iou_error")),
        (right, ("iou_best", "iou_chosen")),
    ):
        for name in names:
            values = _smooth([entry[name] for entry in history], width)
            axes.plot(steps, values, label=name.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=110)


def plot_calibration(predicted: Sequence[float], true: Sequence[float], path: Path) -> None:
    """Plot the mean true IoU of masks by predicted IoU, in deciles, over a scatter plot of all masks."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(predicted, true, s=3, alpha=0.25, linewidths=0, label="masks")
    order = np.argsort(predicted)
    tenths = [part for part in np.array_split(order, 10) if len(part)]
    means = [[float(np.take(values, part).mean()) for part in tenths] for values in (predicted, true)]
    axes.plot(*means, marker="o", color="tab:red", label="mean of each tenth")
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    axes.set(xlabel="predicted IoU", ylabel="true IoU", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def _smooth(values: Sequence[float], width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.convolve(values, np.ones(width) / width, mode="valid")
