"""Fixations and saccades, sample by sample: Salvucci and Goldberg, "Identifying fixations and saccades in eye-tracking
protocols", ETRA 2000.
"""

import enum
from collections import deque
from typing import Protocol

import numpy as np
import numpy.typing as npt

from samserve.domain.gaze.viewing import Viewing

VELOCITY_WINDOW_SECONDS = 0.02
"""Velocity is taken over this long: Olsen, "The Tobii I-VT Fixation Filter", 2012. Between neighbours it would be noise
at high rates."""

MAX_WINDOW_SAMPLES = 256
"""More than a window holds at any real rate; a bound for clocks that run wrong."""


class Movement(enum.Enum):
    """What the eyes do."""

    FIXATION = enum.auto()
    SACCADE = enum.auto()


class FixationClassifier(Protocol):
    """Tells fixations from saccades as the samples come."""

    def classify(self, seconds: float, point: npt.NDArray[np.float64]) -> Movement:
        """What the eyes do at this point (x, y) in pixels; times rise."""
        ...

    def reset(self) -> None:
        """Forget the past, as after a blink."""
        ...


class VelocityThreshold:
    """I-VT: below a velocity the eyes rest.

    Args:
        max_degrees_per_second: of a fixation.
        min_seconds: how long the eyes must have rested before it counts: moments of rest are part of every saccade that
            falls short of its aim.
    """

    def __init__(self, viewing: Viewing, max_degrees_per_second: float = 70.0, min_seconds: float = 0.04) -> None:
        self._viewing = viewing
        self._max_degrees_per_second = max_degrees_per_second
        self._min_seconds = min_seconds
        self._window: deque[tuple[float, npt.NDArray[np.float64]]] = deque(maxlen=MAX_WINDOW_SAMPLES)
        self._resting_since: float | None = None

    def classify(self, seconds: float, point: npt.NDArray[np.float64]) -> Movement:
        """See `FixationClassifier`."""
        window = self._window
        window.append((seconds, point))
        # The newest sample that is a window's length old, or more, is the first.
        while len(window) > 2 and window[1][0] <= seconds - VELOCITY_WINDOW_SECONDS:
            window.popleft()
        first_seconds, first = window[0]
        # A clock whose steps are too short to measure a velocity over gets one over the whole window.
        duration = max(seconds - first_seconds, VELOCITY_WINDOW_SECONDS)
        if self._viewing.degrees(first, point) > self._max_degrees_per_second * duration:
            self._resting_since = None
            return Movement.SACCADE
        if self._resting_since is None:
            self._resting_since = seconds
        rested = seconds - self._resting_since >= self._min_seconds
        return Movement.FIXATION if rested else Movement.SACCADE

    def reset(self) -> None:
        """See `FixationClassifier`."""
        self._window.clear()
        self._resting_since = None


class DispersionThreshold:
    """I-DT: while all points of a window lie close together, the eyes rest.

    Args:
        max_degrees: dispersion of a fixation, (largest x - smallest x) + (largest y - smallest y).
        min_seconds: length of the shortest fixation, and of the window that begins one.
    """

    def __init__(self, viewing: Viewing, max_degrees: float = 1.5, min_seconds: float = 0.1) -> None:
        self._max_pixels = max_degrees / viewing.degrees_per_pixel
        self._min_seconds = min_seconds
        self._window: deque[tuple[float, npt.NDArray[np.float64]]] = deque(maxlen=MAX_WINDOW_SAMPLES)
        self._low = self._high = np.zeros(2)
        self._fixating = False

    def classify(self, seconds: float, point: npt.NDArray[np.float64]) -> Movement:
        """See `FixationClassifier`."""
        if self._fixating:
            low, high = np.minimum(self._low, point), np.maximum(self._high, point)
            if (high - low).sum() <= self._max_pixels:
                self._low, self._high = low, high
                return Movement.FIXATION
            self.reset()
        window = self._window
        window.append((seconds, point))
        while self._dispersion() > self._max_pixels:
            window.popleft()
        if seconds - window[0][0] < self._min_seconds:
            return Movement.SACCADE
        self._fixating = True
        window.clear()
        return Movement.FIXATION

    def reset(self) -> None:
        """See `FixationClassifier`."""
        self._window.clear()
        self._fixating = False

    def _dispersion(self) -> float:
        points = np.array([point for _, point in self._window])
        self._low, self._high = points.min(axis=0), points.max(axis=0)
        return float((self._high - self._low).sum())
