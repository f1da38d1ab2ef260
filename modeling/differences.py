"""Measures of the difference between two outputs."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


UNDECIDED = 0.01
"""Relative to a mask's largest logit. For trained models it corresponds to a probability between 0.45 and 0.55."""


def mask_iou(logits: Floats, expected: Floats) -> list[float]:
    """Intersection over union of masks `[4, M, M]` thresholded at 0, one by one, over the decided pixels.

    A pixel is undecided if both logits are so close to 0 that rounding may change the sign, which is not an error. Some
    masks have only a few dozen pixels, and some are undecided over much of their area.
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
    """Distance of two arrays, treated as vectors, relative to the longer one."""
    a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b)))
