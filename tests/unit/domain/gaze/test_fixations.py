"""Fixations and saccades, on simulated eyes whose truth is known."""

import weakref
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain.gaze.fixations import (
    MAX_WINDOW_SAMPLES,
    DispersionThreshold,
    FixationClassifier,
    Movement,
    VelocityThreshold,
)
from samserve.domain.gaze.simulation import EyeEvent, GazeModel, simulate_gaze
from samserve.domain.gaze.viewing import Viewing
from samserve.domain.geometry import Size

SIZE = Size(720, 1280)
VIEWING = Viewing(SIZE, 60.0)

CLASSIFIERS = [VelocityThreshold, DispersionThreshold]
each_classifier = pytest.mark.parametrize("make", CLASSIFIERS)
Make = Callable[[Viewing], FixationClassifier]


@each_classifier
@pytest.mark.parametrize("rate", [60.0, 120.0, 240.0])
def test_fixations_and_saccades_are_distinguished(make: Make, rate: float) -> None:
    model = GazeModel(rate_hertz=rate, noise=0.1, blinks_per_second=0, fixation_seconds=0.4)
    classifier = make(VIEWING)
    told: dict[EyeEvent, list[bool]] = {EyeEvent.FIXATION: [], EyeEvent.SACCADE: []}
    for sample in simulate_gaze(SIZE, 20, seed=3, model=model):
        movement = classifier.classify(sample.timestamp_nanoseconds / 1e9, np.array([sample.x, sample.y]))
        told[sample.event].append(movement is Movement.FIXATION)
    # What is missed of a fixation is its first 40 or 100 ms, which have to pass before it is one.
    assert np.mean(told[EyeEvent.FIXATION]) > 0.6
    assert np.mean(told[EyeEvent.SACCADE]) < 0.35


@each_classifier
@given(gaps=st.lists(st.floats(1e-3, 0.2), min_size=1, max_size=60), x=st.floats(0, 1280), y=st.floats(0, 720))
def test_eyes_at_rest_fixate_once_they_have_rested_long_enough_and_go_on(
    make: Make, gaps: list[float], x: float, y: float
) -> None:
    classifier = make(VIEWING)
    movements = [classifier.classify(t, np.array([x, y])) for t in (0.0, *np.cumsum(gaps))]
    assert movements[0] is Movement.SACCADE
    expected = sum(gaps) >= 0.1 + 1e-9
    assert (movements[-1] is Movement.FIXATION) or not expected
    first = movements.index(Movement.FIXATION) if Movement.FIXATION in movements else len(movements)
    assert set(movements[first:]) <= {Movement.FIXATION}


@each_classifier
def test_a_jump_ends_a_fixation_at_once(make: Make) -> None:
    classifier = make(VIEWING)
    for index in range(60):
        movement = classifier.classify(index / 120, np.array([300.0, 300.0]))
    assert movement is Movement.FIXATION
    assert classifier.classify(0.5, np.array([900.0, 300.0])) is Movement.SACCADE


@each_classifier
def test_a_clock_that_hardly_moves_costs_no_memory(make: Make) -> None:
    classifier = make(VIEWING)
    points = []
    for index in range(3 * MAX_WINDOW_SAMPLES):
        point = np.array([300.0, 300.0])
        classifier.classify(index * 1e-9, point)
        points.append(weakref.ref(point))
        del point
    assert 0 < sum(point() is not None for point in points) <= MAX_WINDOW_SAMPLES


@given(st.floats(0, 1280), st.floats(0, 720), st.floats(0, 1280), st.floats(0, 720))
def test_angles_are_those_between_the_lines_of_sight(ax: float, ay: float, bx: float, by: float) -> None:
    first, second = (np.array([x - 640, y - 360, VIEWING.focal_pixels]) for x, y in ((ax, ay), (bx, by)))
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    expected = np.degrees(np.arccos(min(1.0, cosine)))
    assert VIEWING.degrees(np.array([ax, ay]), np.array([bx, by])) == pytest.approx(expected, abs=1e-5)


def test_the_frame_spans_its_field_of_view() -> None:
    assert VIEWING.degrees(np.array([0.0, 360.0]), np.array([1280.0, 360.0])) == pytest.approx(60)
