"""Interpolation of sampled values."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=np.floating)


def bilinear(surface: npt.NDArray[F], rows: npt.NDArray[F], columns: npt.NDArray[F]) -> npt.NDArray[F]:
    """Sample a surface `[H, W]` at fractional array positions. Positions outside are clamped to the edge."""
    rows = np.clip(rows, 0, surface.shape[0] - 1)
    columns = np.clip(columns, 0, surface.shape[1] - 1)
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    bottom, right = np.minimum(top + 1, surface.shape[0] - 1), np.minimum(left + 1, surface.shape[1] - 1)
    down, across = rows - top, columns - left
    upper = surface[top, left] * (1 - across) + surface[top, right] * across
    lower = surface[bottom, left] * (1 - across) + surface[bottom, right] * across
    sampled: npt.NDArray[F] = upper * (1 - down) + lower * down
    return sampled
