"""The load test itself: what it asks for and what it concludes."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tools.load.report import Call, Phase, Verdict, verdicts
from tools.load.traffic import Photo, Picture, arrivals, zipf


def phase(load: float, seconds: float = 10.0, **codes: int) -> Phase:
    calls = [Call("warm", 0.0, 0.0, 0.1, code) for code, count in codes.items() for _ in range(count)]
    return Phase(f"{load:g} ×", load, seconds, calls, 0.1, 1.0, 0.0)


def failed(*phases: Phase) -> list[Verdict]:
    return [verdict for verdict in verdicts(phases) if not verdict.holds]


def test_a_gateway_that_sheds_and_keeps_its_goodput_passes() -> None:
    assert not failed(phase(1, OK=400), phase(4, OK=380, RESOURCE_EXHAUSTED=1220))


def test_goodput_that_falls_past_the_knee_fails() -> None:
    [verdict] = failed(phase(1, OK=400), phase(4, OK=300, RESOURCE_EXHAUSTED=1300))
    assert "goodput" in verdict.claim
    assert verdict.found == "75%"


def test_requests_that_time_out_past_the_knee_instead_of_being_refused_fail() -> None:
    [verdict] = failed(phase(1, OK=400), phase(4, OK=390, RESOURCE_EXHAUSTED=1000, DEADLINE_EXCEEDED=200))
    assert "200 DEADLINE_EXCEEDED" in verdict.found


def test_one_internal_error_below_the_knee_fails() -> None:
    [verdict] = failed(phase(0.5, OK=200, INTERNAL=1), phase(4, OK=200, RESOURCE_EXHAUSTED=1000))
    assert verdict.found == "1 INTERNAL"


def test_pictures_of_one_photo_are_different_images_under_the_ids_that_the_gateway_gives_them() -> None:
    photo = Photo(b"jpeg")
    first, second = Picture(photo, 1), Picture(photo, 2)
    assert first.image_id != second.image_id
    assert first.image_id == f"sha256:{hashlib.sha256(first.data).hexdigest()}"


@given(st.integers(1, 500), st.floats(0, 3))
def test_popularity_falls_with_the_rank_and_sums_to_one(count: int, exponent: float) -> None:
    shares = zipf(count, exponent)
    assert np.isclose(shares.sum(), 1)
    assert (np.diff(shares) <= 0).all()


@given(st.integers(0, 2**32), st.floats(10, 1000))
def test_arrivals_come_at_the_rate_asked_for(seed: int, rate: float) -> None:
    due = list(arrivals(rate, 400 / rate, np.random.default_rng(seed)))
    assert due == sorted(due)
    # Six standard deviations of a Poisson count of 400.
    assert abs(len(due) - 400) < 6 * 20
