"""Requests that cannot be answered before their deadline are refused at once."""

from contextlib import ExitStack

import pytest

from samserve.domain.errors import CapacityExceeded
from samserve.usecases.load.deadlines import DeadlineAdmission


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def busy(admission: DeadlineAdmission, clock: Clock, seconds: float, count: int = 200, in_flight: int = 8) -> None:
    """So many end, one each `seconds`, while others are in flight."""
    with ExitStack() as others:
        for _ in range(in_flight - 1):
            others.enter_context(admission.keep(None))
        for _ in range(count):
            with admission.keep(None):
                clock.now += seconds


def test_a_deadline_that_the_requests_in_flight_outlast_is_refused_with_their_time_to_end() -> None:
    clock = Clock()
    admission = DeadlineAdmission(clock)
    busy(admission, clock, 0.1)
    with ExitStack() as flight:
        for _ in range(10):
            flight.enter_context(admission.keep(None))
        with pytest.raises(CapacityExceeded) as raised, admission.keep(0.5):
            pytest.fail("was let in")
        assert raised.value.retry_after_seconds == pytest.approx(1.0, rel=0.3)
        with admission.keep(1.1), admission.keep(None):
            pass


def test_an_idle_gateway_refuses_no_deadline() -> None:
    clock = Clock()
    admission = DeadlineAdmission(clock)
    busy(admission, clock, 60.0)
    with admission.keep(0.001):
        pass


def test_a_past_overload_refuses_nobody_while_few_are_in_flight() -> None:
    clock = Clock()
    admission = DeadlineAdmission(clock)
    busy(admission, clock, 60.0)
    with admission.keep(None), admission.keep(None), admission.keep(0.001):
        pass


def test_slow_requests_that_come_alone_do_not_count_against_many_at_once() -> None:
    clock = Clock()
    admission = DeadlineAdmission(clock)
    busy(admission, clock, 60.0, in_flight=1)
    with admission.keep(None), admission.keep(None), admission.keep(0.001):
        pass


def test_immediate_failures_do_not_count_as_throughput() -> None:
    clock = Clock()
    admission = DeadlineAdmission(clock)
    busy(admission, clock, 0.1)
    with ExitStack() as flight:
        for _ in range(8):
            flight.enter_context(admission.keep(None))
        for _ in range(100):
            with pytest.raises(ValueError, match="bad"), admission.keep(None):
                raise ValueError("bad")
        with pytest.raises(CapacityExceeded), admission.keep(0.5):
            pytest.fail("was let in")
