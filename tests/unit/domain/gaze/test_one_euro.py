"""The 1 Euro filter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain.gaze.one_euro import OneEuroFilter, OneEuroParameters

parameters = st.builds(OneEuroParameters, st.floats(0.1, 10), st.floats(0, 2), st.floats(0.1, 10))
steps = st.lists(st.floats(1e-4, 0.5), min_size=1, max_size=40)
coordinates = st.floats(-1e4, 1e4)


def times(gaps: list[float]) -> list[float]:
    return [0.0, *np.cumsum(gaps)]


@given(parameters, steps, coordinates, coordinates)
def test_a_point_at_rest_passes_unchanged_at_irregular_times(
    given: OneEuroParameters, gaps: list[float], x: float, y: float
) -> None:
    smooth = OneEuroFilter(given)
    for seconds in times(gaps):
        np.testing.assert_array_equal(smooth.filter(seconds, np.array([x, y])), [x, y])


@given(parameters, st.lists(st.tuples(st.floats(1e-4, 0.5), coordinates), min_size=2, max_size=40))
def test_the_filter_stays_within_the_range_of_its_inputs(
    given: OneEuroParameters, moves: list[tuple[float, float]]
) -> None:
    smooth, seconds, values = OneEuroFilter(given), 0.0, []
    for gap, value in moves:
        seconds += gap
        values.append(value)
        filtered = smooth.filter(seconds, np.array([value]))[0]
        assert min(values) - 1e-6 <= filtered <= max(values) + 1e-6


@given(st.integers(0, 100), st.floats(30, 240))
def test_jitter_is_reduced(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    smooth = OneEuroFilter(OneEuroParameters(1.0, 0.001, 1.0))
    raw = rng.normal(0, 1, (200, 2))
    filtered = np.array([smooth.filter(index / rate, point) for index, point in enumerate(raw)])
    assert np.diff(filtered, axis=0).std() < 0.5 * np.diff(raw, axis=0).std()


def test_speed_lifts_the_cutoff_so_that_fast_moves_lag_less() -> None:
    def lag(beta: float) -> float:
        smooth = OneEuroFilter(OneEuroParameters(1.0, beta, 1.0))
        for index in range(60):
            filtered = smooth.filter(index / 120, np.array([10.0 * index]))
        return float(590 - filtered[0])

    assert lag(1.0) < lag(0.1) < lag(0.0)


def test_the_second_value_follows_the_one_euro_paper() -> None:
    # alpha = 1 / (1 + tau / te), tau = 1 / (2 pi cutoff); computed by hand for te = 0.1, cutoffs 1 and 1 + beta |dx|.
    smooth = OneEuroFilter(OneEuroParameters(1.0, 0.5, 1.0))
    smooth.filter(0.0, np.array([0.0]))
    weight = 1 / (1 + 1 / (2 * np.pi * 0.1))
    cutoff = 1 + 0.5 * weight * 10
    expected = 1 / (1 + 1 / (2 * np.pi * cutoff * 0.1))
    assert smooth.filter(0.1, np.array([1.0]))[0] == pytest.approx(expected)


def test_reset_forgets() -> None:
    smooth = OneEuroFilter(OneEuroParameters())
    smooth.filter(0.0, np.array([0.0, 0.0]))
    smooth.reset()
    np.testing.assert_array_equal(smooth.filter(0.01, np.array([500.0, 3.0])), [500, 3])


def test_equal_timestamps_leave_the_point_unchanged() -> None:
    smooth = OneEuroFilter(OneEuroParameters(1.0, 0.001, 1.0))
    smooth.filter(0.0, np.array([1.0, 1.0]))
    held = smooth.filter(1.76e9, np.array([5.0, 5.0]))
    assert (smooth.filter(1.76e9, np.array([9.0, 9.0])) == held).all()
    assert np.isfinite(smooth.filter(1.76e9 + 0.02, np.array([9.0, 9.0]))).all()
