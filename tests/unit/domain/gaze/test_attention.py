"""Filter, classifier and hold together."""

import numpy as np

from samserve.domain.gaze.attention import Attention, LookKind
from samserve.domain.gaze.fixations import VelocityThreshold
from samserve.domain.gaze.one_euro import OneEuroFilter, OneEuroParameters
from samserve.domain.gaze.viewing import Viewing
from samserve.domain.geometry import Size

HERE, THERE = np.array([300.0, 300.0]), np.array([900.0, 500.0])


def attention() -> Attention:
    viewing = Viewing(Size(720, 1280), 60.0)
    return Attention(OneEuroFilter(OneEuroParameters(1.0, 0.0, 1.0)), VelocityThreshold(viewing), hold_seconds=0.3)


def rest(subject: Attention, start: float) -> float:
    for index in range(30):
        look = subject.look(start + index / 120, HERE)
    assert look.kind is LookKind.FIXATION
    return start + 29 / 120


def test_a_blink_holds_the_object_and_a_longer_absence_releases_it() -> None:
    subject = attention()
    last = rest(subject, 0.0)
    assert subject.look(last + 0.1, None).kind is LookKind.HELD
    assert subject.look(last + 0.3, None).kind is LookKind.HELD
    assert subject.look(last + 0.31, None).kind is LookKind.AWAY


def test_hold_counts_from_the_last_valid_sample_of_the_devices_clock() -> None:
    subject = attention()
    last = rest(subject, 0.0)
    subject.look(last + 0.29, HERE)
    assert subject.look(last + 0.5, None).kind is LookKind.HELD


def test_a_clock_that_starts_again_holds_the_object_as_if_no_time_had_passed() -> None:
    subject = attention()
    last = rest(subject, 1e6)
    subject.look(last + 0.1, None)
    subject.restart_clock()
    assert subject.look(0.0, None).kind is LookKind.HELD
    assert subject.look(0.19, None).kind is LookKind.HELD
    assert subject.look(0.21, None).kind is LookKind.AWAY


def test_smoothing_restarts_with_the_clock() -> None:
    subject = attention()
    rest(subject, 1e6)
    subject.restart_clock()
    look = subject.look(0.0, THERE)
    assert look.point is not None
    np.testing.assert_array_equal(look.point, THERE)


def test_a_stream_without_a_valid_sample_starts_as_away() -> None:
    assert attention().look(0.0, None).kind is LookKind.AWAY


def test_smoothing_restarts_after_a_blink() -> None:
    subject = attention()
    last = rest(subject, 0.0)
    subject.look(last + 0.1, None)
    look = subject.look(last + 0.2, THERE)
    assert look.point is not None
    np.testing.assert_array_equal(look.point, THERE)
    assert look.kind is LookKind.SACCADE
