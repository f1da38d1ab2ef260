"""The simulated person."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samserve.domain.gaze.simulation import EyeEvent, GazeModel, simulate_gaze

SIZE = (480, 640)


def test_the_same_seed_is_the_same_person_and_another_is_not() -> None:
    first, again, other = (list(map(repr, simulate_gaze(SIZE, 3, seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([60.0, 120.0, 240.0]), st.floats(0, 0.3))
def test_times_rise_at_the_trackers_rate_and_blinks_have_no_place(seed: int, rate: float, jitter: float) -> None:
    samples = list(simulate_gaze(SIZE, 2, seed, model=GazeModel(rate_hertz=rate, jitter=jitter, blinks_per_second=2)))
    assert len(samples) == 2 * rate
    assert all(a.timestamp_nanoseconds < b.timestamp_nanoseconds for a, b in pairwise(samples))
    assert all(b.sequence == a.sequence + 1 for a, b in pairwise(samples))
    for sample in samples:
        assert sample.valid == (sample.event is not EyeEvent.BLINK) == (not math.isnan(sample.x))


def test_targets_are_looked_at() -> None:
    targets = [(100.0, 100.0), (500.0, 400.0)]
    samples = list(simulate_gaze(SIZE, 20, 1, targets, GazeModel(blinks_per_second=0)))
    # The first fixation is in the middle, before anything was chosen.
    later = [sample for sample in samples[120:] if sample.event is EyeEvent.FIXATION]
    near = [min(math.hypot(s.x - x, s.y - y) for x, y in targets) < 40 for s in later]
    assert np.mean(near) > 0.98


def test_a_tracker_without_noise_shows_saccades_as_fast_as_eyes_make_them() -> None:
    model = GazeModel(rate_hertz=1000, noise=0, jitter=0, blinks_per_second=0, drift=0)
    samples = list(simulate_gaze(SIZE, 10, 3, model=model))
    pixels_per_degree = 320 / math.tan(math.radians(30)) * math.radians(1)
    speeds = [math.hypot(b.x - a.x, b.y - a.y) * 1000 / pixels_per_degree for a, b in pairwise(samples)]
    assert 200 < max(speeds) < 900
    still = [
        speed
        for speed, (a, b) in zip(speeds, pairwise(samples), strict=True)
        if a.event is b.event is EyeEvent.FIXATION
    ]
    assert max(still) == pytest.approx(0, abs=1e-6)
