"""The 1 Euro filter: Casiez, Roussel and Vogel, "1€ Filter: a simple speed-based low-pass filter for noisy input in
interactive systems", CHI 2012.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class OneEuroParameters:
    """Parameters of the smoothing.

    Attributes:
        min_cutoff_hertz: cutoff frequency at rest; a lower value means less jitter.
        beta: increase of the cutoff with speed, in hertz per unit per second; a higher value means less lag.
        d_cutoff_hertz: cutoff frequency of the speed estimate.
    """

    min_cutoff_hertz: float = 1.5
    beta: float = 0.2
    d_cutoff_hertz: float = 5.0


class OneEuroFilter:
    """Filters points `[D]`, each coordinate by its own speed. Time steps may be irregular."""

    def __init__(self, parameters: OneEuroParameters) -> None:
        self._parameters = parameters
        self._seconds = 0.0
        self._value: npt.NDArray[np.float64] | None = None
        self._speed: npt.NDArray[np.float64] = np.zeros(0)

    def reset(self) -> None:
        """Discard the history: the next point is returned unchanged."""
        self._value = None

    def filter(self, seconds: float, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the smoothed point.

        Args:
            seconds: time of `value`. If it is not later than the previous time, the previous point is returned.
        """
        parameters = self._parameters
        if self._value is None:
            self._seconds, self._value, self._speed = seconds, value, np.zeros_like(value)
            return value
        step = seconds - self._seconds
        # Far from zero, float seconds cannot represent a difference of one nanosecond.
        if step <= 0:
            return self._value
        speed = (value - self._value) / step
        self._speed = self._speed + _smoothing(step, parameters.d_cutoff_hertz) * (speed - self._speed)
        cutoff = parameters.min_cutoff_hertz + parameters.beta * np.abs(self._speed)
        self._value = self._value + _smoothing(step, cutoff) * (value - self._value)
        self._seconds = seconds
        return self._value


def _smoothing(step_seconds: float, cutoff_hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Weight of the new value in an exponential filter with this cutoff: the paper's alpha."""
    turns = 2 * math.pi * np.asarray(cutoff_hertz, dtype=np.float64) * step_seconds
    weight: npt.NDArray[np.float64] = turns / (1 + turns)
    return weight
