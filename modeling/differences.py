"""How far two answers are from each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


UNDECIDED = 0.01
"""As a part of a mask's largest logit: of trained models, a probability between 0.45 and 0.55."""


def mask_iou(logits: Floats, expected: Floats) -> list[float]:
    """Intersection over union of masks `[4, M, M]` cut at 0, one by one, of the pixels that are decided.

    Where both logits are so near to 0, rounding took one across, which is no fault. Yet there are masks of a few dozen
    pixels, and some are undecided over a good part of their area.
    """
    mask, expected_mask = logits > 0, expected > 0
    largest_logits = np.abs(expected).max(axis=(-2, -1), keepdims=True)
    decided = np.maximum(np.abs(logits), np.abs(expected)) > UNDECIDED * largest_logits
    intersections = (mask & expected_mask & decided).sum(axis=(-2, -1))
    unions = ((mask | expected_mask) & decided).sum(axis=(-2, -1))
    return [float(part / whole) if whole else 1.0 for part, whole in zip(intersections, unions, strict=True)]


def largest(values: Floats) -> float:
    """The largest absolute value."""
    return float(np.abs(values.astype(np.float32)).max())


def cosine(first: Floats, second: Floats) -> float:
    """Cosine of the angle between two arrays, taken as vectors."""
    a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def distance(first: Floats, second: Floats) -> float:
    """Distance of two arrays, taken as vectors, as a part of the longer one."""
    a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b)))
