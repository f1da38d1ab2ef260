"""Interpretation of a stream of gaze samples: where the person looks, and whether they look at all."""

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.domain.gaze.fixations import FixationClassifier, Movement
from samserve.domain.gaze.one_euro import OneEuroFilter


class LookKind(enum.Enum):
    """Kinds of interpreted samples."""

    FIXATION = enum.auto()
    SACCADE = enum.auto()
    HELD = enum.auto()
    """Not detected, but not for long: a blink."""
    AWAY = enum.auto()
    """Not detected for longer than a blink."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """An interpreted sample.

    Attributes:
        point: the filtered gaze (x, y) in pixels; None where the sample was not seen.
    """

    kind: LookKind
    point: npt.NDArray[np.float64] | None


class Attention:
    """Filter, fixation classifier and hold time combined.

    Args:
        hold_seconds: how long samples may be invalid before the person counts as looking away.
    """

    def __init__(self, smoothing: OneEuroFilter | None, classifier: FixationClassifier, hold_seconds: float) -> None:
        self._smoothing = smoothing
        self._classifier = classifier
        self._hold_seconds = hold_seconds
        self._last_seconds = 0.0
        self._seen_seconds: float | None = None
        self._blinking = False

    def look(self, seconds: float, point: npt.NDArray[np.float64] | None) -> Look:
        """Interpret the next sample.

        Args:
            seconds: time on the device's clock; must increase.
            point: (x, y) in pixels, or None for an invalid sample.
        """
        self._last_seconds = seconds
        if point is None:
            held = self._seen_seconds is not None and seconds - self._seen_seconds <= self._hold_seconds
            self._blinking = True
            return Look(LookKind.HELD if held else LookKind.AWAY, None)
        if self._blinking:
            # Closing and opening lids displace the detected pupil centre, so nothing is smoothed across a blink.
            self._reset()
        self._blinking = False
        self._seen_seconds = seconds
        smooth = point if self._smoothing is None else self._smoothing.filter(seconds, point)
        movement = self._classifier.classify(seconds, smooth)
        return Look(LookKind.FIXATION if movement is Movement.FIXATION else LookKind.SACCADE, smooth)

    def restart_clock(self) -> None:
        """Restart the device's clock at 0. The elapsed time is unknown and counts as none."""
        self._reset()
        if self._seen_seconds is not None:
            self._seen_seconds -= self._last_seconds
        self._last_seconds = 0.0

    def _reset(self) -> None:
        self._classifier.reset()
        if self._smoothing is not None:
            self._smoothing.reset()
