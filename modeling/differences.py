"""How far two answers are from each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def mask_iou(logits: Floats, expected: Floats) -> list[float]:
    """Intersection over union of masks `[4, M, M]` cut at 0, one by one; 1 where they differ by no more than one pixel.

    One logit that rounding took across 0 is no fault, and yet much of a mask of forty pixels.
    """
    intersections = np.logical_and(logits > 0, expected > 0).sum(axis=(-2, -1))
    unions = np.logical_or(logits > 0, expected > 0).sum(axis=(-2, -1))
    return [float(part / whole) if whole - part > 1 else 1.0 for part, whole in zip(intersections, unions, strict=True)]


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
