"""Homographies between frames of a camera that rotates, or views something flat or distant.

Points are (x, y) in pixels, with the origin at the top left corner of the top left pixel. Hartley and Zisserman,
Multiple View Geometry, 2nd edition, section 2.3.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import Size

Homography: TypeAlias = npt.NDArray[np.float64]
"""float64 `[3, 3]`, maps (x, y, 1) up to scale."""

IDENTITY: Homography = np.eye(3)

_MAX_CONDITION = 1e12
_MAX_STRETCH = 8.0

# Clients may send any nine numbers. Overflows become infinite or NaN, which later checks reject.
_silent = np.errstate(all="ignore")


def apply(homography: Homography, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Map points `[..., 2]`. Points on or behind the horizon become NaN."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    depth = mapped[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        result: npt.NDArray[np.float64] = np.where(depth > 0, mapped[..., :2] / depth, np.nan)
    return result


@_silent
def between(reference_from_a: Homography, reference_from_b: Homography) -> Homography:
    """Homography from pixels of b to pixels of a, given both maps to a common reference. Finite for real camera
    motions."""
    a, b = (homography / np.abs(homography).max() for homography in (reference_from_a, reference_from_b))
    return _oriented(np.linalg.solve(a, b))


def inverse(homography: Homography) -> Homography:
    """The inverse map."""
    return _oriented(np.linalg.inv(homography))


def scaling(x: float, y: float) -> Homography:
    """Scaling of both axes."""
    return np.diag([x, y, 1.0])


def corners(size: Size) -> npt.NDArray[np.float64]:
    """The corners of a frame, `[4, 2]`, clockwise from the top left."""
    height, width = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)


@_silent
def is_invertible(homography: Homography) -> bool:
    """True if the map is finite and not close to singular."""
    return bool(np.isfinite(homography).all() and np.linalg.cond(homography) < _MAX_CONDITION)


@_silent
def is_plausible(homography: Homography, size: Size) -> bool:
    """True if a camera can have moved like this between two overlapping frames of this size.

    The frame's corners must stay in front of the camera and in order, and no side may shrink or grow more than
    eightfold. Maps that fail this are wrong estimates.
    """
    if not is_invertible(homography):
        return False
    before = corners(size)
    after = apply(homography, before)
    if not np.isfinite(after).all():
        return False
    sides = np.roll(after, -1, axis=0) - after
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    stretch = np.linalg.norm(sides, axis=1) / np.linalg.norm(np.roll(before, -1, axis=0) - before, axis=1)
    return bool((turns > 0).all() and (stretch < _MAX_STRETCH).all() and (stretch > 1 / _MAX_STRETCH).all())


def _oriented(homography: npt.NDArray[Any]) -> Homography:
    # The scale is arbitrary. Its sign is chosen so that visible points have positive depth, as `apply` requires.
    corner = float(homography[2, 2])
    return np.asarray(homography / corner if corner else homography, dtype=np.float64)
