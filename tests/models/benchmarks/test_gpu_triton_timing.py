"""Timing of calls, Triton's counters and the table of records."""

import asyncio

from benchmarks.gpu_triton.__main__ import table
from benchmarks.gpu_triton.statistics import Counters, difference
from benchmarks.gpu_triton.timing import MIN_ROUNDS, WARM_UP_ROUNDS, at_once, by_turns


async def test_calls_are_timed_by_turns_after_warm_up() -> None:
    calls: list[str] = []

    async def first() -> None:
        calls.append("first")

    async def second() -> None:
        calls.append("second")

    times = await by_turns({"first": first, "second": second}, 0.0)
    assert calls == ["first", "second"] * (WARM_UP_ROUNDS + MIN_ROUNDS)
    assert {name: len(seconds) for name, seconds in times.items()} == {"first": MIN_ROUNDS, "second": MIN_ROUNDS}


async def test_callers_run_at_once_and_all_their_calls_count() -> None:
    running, most = 0, 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    times, rate = await at_once(call, 4, 0.05)
    assert most == 4
    assert len(times) >= 4
    assert 0 < rate < 4 / 0.01


def test_counters_between_two_readings_become_means() -> None:
    before = Counters(10, 10, (10, 10, 10, 10), (0, 0, 0, 0))
    after = Counters(26, 12, (26, 26, 26, 26), (16_000_000, 0, 32_000_000, 0))
    fields = difference(before, after)
    assert fields["runs"] == 2
    assert fields["rows_per_run"] == 8
    assert fields["queue_mean_ms"] == 1
    assert fields["compute_infer_mean_ms"] == 2
    assert difference(after, after) == {}


def test_table_shows_figures_and_failures() -> None:
    figure = {"stage": "triton", "name": "warm", "median_ms": 2.0, "q1_ms": 1.0, "q3_ms": 3.0, "versions": {}}
    lines = table([figure, {**figure, "requests_per_second": 9.0}, {"name": "cold", "failed": "no"}]).splitlines()
    assert lines == [
        "warm: 2.00 ms (1.00 to 3.00)",
        "warm: 2.00 ms (1.00 to 3.00), 9.0 requests/s",
        'cold: {"failed": "no"}',
    ]
