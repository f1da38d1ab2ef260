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
"""Length of the window for velocities: Olsen, "The Tobii I-VT Fixation Filter", 2012. Between neighbouring samples, the
velocity would be noise at high sampling rates."""

MAX_WINDOW_SAMPLES = 256
"""More samples than a window has at any real rate; limits memory if clocks run wrong."""


class Movement(enum.Enum):
    """Movement of the eyes."""

    FIXATION = enum.auto()
    SACCADE = enum.auto()


class FixationClassifier(Protocol):
    """Interface of classifiers that distinguish fixations from saccades, sample by sample."""

    def classify(self, seconds: float, point: npt.NDArray[np.float64]) -> Movement:
        """Classify the movement at this point (x, y) in pixels. Times must increase."""
        ...

    def reset(self) -> None:
        """Discard the history, as after a blink."""
        ...


class VelocityThreshold:
    """I-VT: the eyes fixate while their velocity is below a threshold.

    Args:
        max_degrees_per_second: largest velocity of a fixation.
        min_seconds: how long the eyes must have rested before a fixation starts, because saccades that fall short of
            their target contain moments of rest.
    """

    def __init__(self, viewing: Viewing, max_degrees_per_second: float = 70.0, min_seconds: float = 0.04) -> None:
        self._viewing = viewing
        self._max_degrees_per_second = max_degrees_per_second
        self._min_seconds = min_seconds
        self._window: deque[tuple[float, npt.NDArray[np.float64]]] = deque(maxlen=MAX_WINDOW_SAMPLES)
        self._resting_since: float | None = None

    def classify(self, seconds: float, point: npt.NDArray[np.float64]) -> Movement:
        """Classify by the velocity over the last window."""
        window = self._window
        window.append((seconds, point))
        # The first sample kept is the newest one that is at least a window's length old.
        while len(window) > 2 and window[1][0] <= seconds - VELOCITY_WINDOW_SECONDS:
            window.popleft()
        first_seconds, first = window[0]
        # If the clock's steps are too short to measure a velocity, use the whole window.
        duration = max(seconds - first_seconds, VELOCITY_WINDOW_SECONDS)
        if self._viewing.degrees(first, point) > self._max_degrees_per_second * duration:
            self._resting_since = None
            return Movement.SACCADE
        if self._resting_since is None:
            self._resting_since = seconds
        rested = seconds - self._resting_since >= self._min_seconds
        return Movement.FIXATION if rested else Movement.SACCADE

    def reset(self) -> None:
        """Discard the window."""
        self._window.clear()
        self._resting_since = None


class DispersionThreshold:
    """I-DT: the eyes fixate while all points of a window lie close together.

    Args:
        max_degrees: dispersion of a fixation, (largest x - smallest x) + (largest y - smallest y).
        min_seconds: duration of the shortest fixation, and of the window that starts one.
    """

    def __init__(self, viewing: Viewing, max_degrees: float = 1.5, min_seconds: float = 0.1) -> None:
        self._max_pixels = max_degrees / viewing.degrees_per_pixel
        self._min_seconds = min_seconds
        self._window: deque[tuple[float, npt.NDArray[np.float64]]] = deque(maxlen=MAX_WINDOW_SAMPLES)
        self._low = self._high = np.zeros(2)
        self._fixating = False

    def classify(self, seconds: float, point: npt.NDArray[np.float64]) -> Movement:
        """Classify by the dispersion of the points in the window."""
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
        """Discard the window."""
        self._window.clear()
        self._fixating = False

    def _dispersion(self) -> float:
        points = np.array([point for _, point in self._window])
        self._low, self._high = points.min(axis=0), points.max(axis=0)
        return float((self._high - self._low).sum())
