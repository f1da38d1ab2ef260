"""The breaker, on a clock of the test's own."""

from dataclasses import dataclass, field

from samserve.adapters.redis import Breaker


@dataclass
class BreakerObserver:
    """Records what the breaker reports."""

    changes: list[bool] = field(default_factory=list)

    def redis_call(self, operation: str, outcome: str) -> None:
        raise AssertionError("the breaker makes no calls")

    def rejected(self, reason: str) -> None:
        raise AssertionError("the breaker reads no values")

    def breaker(self, is_open: bool) -> None:
        self.changes.append(is_open)

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        raise AssertionError("the breaker stores nothing")


class Bench:
    """A breaker that opens after three failures and cools down for ten seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.observer = BreakerObserver()
        self.breaker = Breaker(self.observer, failures_to_open=3, cooldown_seconds=10, clock=lambda: self.now)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed("test")


def test_opens_after_failures_in_a_row_only() -> None:
    bench = Bench()
    bench.fail(2)
    bench.breaker.succeeded()
    bench.fail(2)
    assert bench.breaker.allows()
    assert bench.observer.changes == []
    bench.fail()
    assert not bench.breaker.allows()
    assert bench.observer.changes == [True]


def test_lets_one_probe_through_after_the_cool_down() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now = 9.9
    assert not bench.breaker.allows()
    bench.now = 10.0
    assert [bench.breaker.allows() for _ in range(3)] == [True, False, False]


def test_a_failed_probe_waits_for_another_cool_down() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now = 10.0
    assert bench.breaker.allows()
    bench.fail()
    bench.now = 19.9
    assert not bench.breaker.allows()
    bench.now = 20.0
    assert bench.breaker.allows()
    assert bench.observer.changes == [True]


def test_a_probe_that_never_reports_does_not_block_later_probes() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now = 10.0
    assert bench.breaker.allows()
    bench.now = 20.0
    assert bench.breaker.allows()


def test_a_success_closes_it_and_starts_the_count_anew() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now = 10.0
    assert bench.breaker.allows()
    bench.breaker.succeeded()
    bench.fail(2)
    assert all(bench.breaker.allows() for _ in range(3))
    assert bench.observer.changes == [True, False]
