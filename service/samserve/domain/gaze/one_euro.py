"""The 1 Euro filter: Casiez, Roussel and Vogel, "1€ Filter: a simple speed-based low-pass filter for noisy input in
interactive systems", CHI 2012.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class OneEuroParameters:
    """How much is smoothed.

    Attributes:
        min_cutoff_hertz: cutoff at rest: lower means less jitter.
        beta: how much the cutoff rises with speed, in hertz for each unit a second: higher means less lag.
        d_cutoff_hertz: cutoff of the speed estimate.
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
        """Forget the past: the next point passes as it is."""
        self._value = None

    def filter(self, seconds: float, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The smoothed point.

        Args:
            seconds: when `value` was measured; where it is not later than the last time, the last point holds.
        """
        parameters = self._parameters
        if self._value is None:
            self._seconds, self._value, self._speed = seconds, value, np.zeros_like(value)
            return value
        step = seconds - self._seconds
        # Timestamps a nanosecond apart are the same number of seconds when the first was years before.
        if step <= 0:
            return self._value
        speed = (value - self._value) / step
        self._speed = self._speed + _smoothing(step, parameters.d_cutoff_hertz) * (speed - self._speed)
        cutoff = parameters.min_cutoff_hertz + parameters.beta * np.abs(self._speed)
        self._value = self._value + _smoothing(step, cutoff) * (value - self._value)
        self._seconds = seconds
        return self._value


def _smoothing(step_seconds: float, cutoff_hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Weight of the new value in an exponential filter of this cutoff: the paper's alpha."""
    turns = 2 * math.pi * np.asarray(cutoff_hertz, dtype=np.float64) * step_seconds
    weight: npt.NDArray[np.float64] = turns / (1 + turns)
    return weight
