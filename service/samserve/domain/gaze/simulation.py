"""Simulation of a person with an eye tracker: fixations, saccades, drift, blinks and tracker noise, reproducible by
seed.

Saccade durations follow the main sequence, 2.2 ms per degree plus 21 ms (Carpenter, Movements of the Eyes, 1988);
trajectories have minimum jerk. Fixations last about 300 ms, as in scene viewing (Henderson, Trends in Cognitive
Sciences, 2003).
"""

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = npt.NDArray[np.float64]


class EyeEvent(enum.Enum):
    """True movement of the eyes, which a tracker does not know."""

    FIXATION = enum.auto()
    SACCADE = enum.auto()
    BLINK = enum.auto()


@dataclass(frozen=True, slots=True)
class SimulatedSample:
    """One sample of the tracker.

    Attributes:
        sequence: from 0.
        timestamp_nanoseconds: of the device's clock, not quite regular.
        x: in pixels, NaN during a blink.
        y: in pixels, NaN during a blink.
        event: the truth.
    """

    sequence: int
    timestamp_nanoseconds: int
    x: float
    y: float
    event: EyeEvent

    @property
    def valid(self) -> bool:
        """True if the tracker detects the eyes."""
        return self.event is not EyeEvent.BLINK


@dataclass(frozen=True, slots=True)
class GazeModel:
    """Parameters of the eyes and the tracker. Angles are in degrees.

    Attributes:
        field_of_view_degrees: that the frame spans horizontally.
        fixation_seconds: mean; fixations are gamma distributed.
        drift: speed of the slow wandering within a fixation.
        noise: standard deviation of the tracker's error, each coordinate.
        blinks_per_second: at random; a blink lasts 100 to 250 ms.
        jitter: standard deviation of the sampling times, in sampling periods.
    """

    rate_hertz: float = 120.0
    field_of_view_degrees: float = 60.0
    fixation_seconds: float = 0.3
    drift: float = 0.3
    noise: float = 0.2
    blinks_per_second: float = 0.25
    jitter: float = 0.05


def simulate_gaze(
    size: tuple[int, int],
    seconds: float,
    seed: int = 0,
    targets: Sequence[tuple[float, float]] | None = None,
    model: GazeModel | None = None,
) -> Iterator[SimulatedSample]:
    """Simulate looking at a picture for the given time.

    Args:
        size: (H, W) of the picture in pixels.
        targets: points (x, y) to look at, in random order and rarely twice in a row; None means anywhere.
    """
    model = model or GazeModel()
    rng = np.random.default_rng(seed)
    height, width = size
    pixels_per_degree = width / 2 / math.tan(math.radians(model.field_of_view_degrees) / 2) * math.radians(1)
    path = _path(rng, np.array([width, height], dtype=np.float64), targets, model, pixels_per_degree)
    blinks = _Blinks(rng, model.blinks_per_second)
    start, end, event, course = next(path)
    for sequence in range(round(seconds * model.rate_hertz)):
        ideal = sequence / model.rate_hertz
        # Limited, so that two samples never change places.
        now = ideal + np.clip(rng.normal(0, model.jitter), -0.4, 0.4) / model.rate_hertz
        while now >= end:
            start, end, event, course = next(path)
        closed = blinks.closed(now)
        seen = course((now - start) / (end - start)) + rng.normal(0, model.noise * pixels_per_degree, 2)
        x, y = (math.nan, math.nan) if closed else seen.tolist()
        # Starts at half a second, so that jitter cannot make the first time negative.
        yield SimulatedSample(sequence, round((now + 0.5) * 1e9), x, y, EyeEvent.BLINK if closed else event)


class _Course:
    """Trajectory from one point to another, for times from 0 to 1."""

    def __init__(self, begin: Point, end: Point, smooth: bool) -> None:
        self._begin, self._end, self._smooth = begin, end, smooth

    def __call__(self, fraction: float) -> Point:
        part = fraction**3 * (10 - 15 * fraction + 6 * fraction**2) if self._smooth else fraction
        point: Point = self._begin + part * (self._end - self._begin)
        return point


class _Blinks:
    def __init__(self, rng: np.random.Generator, per_second: float) -> None:
        self._rng, self._per_second = rng, per_second
        self._start, self._end = self._next(0.0)

    def closed(self, now: float) -> bool:
        """True if the lids are closed. Times must increase."""
        while now >= self._end:
            self._start, self._end = self._next(self._end)
        return now >= self._start

    def _next(self, after: float) -> tuple[float, float]:
        if self._per_second <= 0:
            return math.inf, math.inf
        start = after + self._rng.exponential(1 / self._per_second)
        return start, start + self._rng.uniform(0.1, 0.25)


def _path(
    rng: np.random.Generator,
    extent: Point,
    targets: Sequence[tuple[float, float]] | None,
    model: GazeModel,
    pixels_per_degree: float,
) -> Iterator[tuple[float, float, EyeEvent, _Course]]:
    """Endless sequence of fixations and the saccades between them: start, end and position of the eyes."""
    now, at = -1.0 / model.rate_hertz, extent / 2
    previous = -1
    while True:
        duration = max(0.1, rng.gamma(6, model.fixation_seconds / 6))
        away = rng.normal(size=2)
        drifted = at + away / np.linalg.norm(away) * model.drift * pixels_per_degree * duration
        yield now, now + duration, EyeEvent.FIXATION, _Course(at, drifted, smooth=False)
        now += duration
        if targets is None:
            aim = rng.uniform(0.05, 0.95, 2) * extent
        else:
            choices = [index for index in range(len(targets)) if index != previous] or [previous]
            previous = int(rng.choice(choices))
            aim = np.array(targets[previous]) + rng.normal(0, 0.5 * pixels_per_degree, 2)
        duration = 0.021 + 0.0022 * float(np.linalg.norm(aim - drifted)) / pixels_per_degree
        yield now, now + duration, EyeEvent.SACCADE, _Course(drifted, aim, smooth=True)
        now, at = now + duration, aim
