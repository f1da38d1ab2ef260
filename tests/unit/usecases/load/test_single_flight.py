import asyncio
from collections.abc import Awaitable, Callable

import pytest

from samserve.usecases.load.single_flight import SingleFlight
from tests.support.waiting import settled

Publish = Callable[[str], None]


class Work:
    """Counts how often it is begun, and ends when told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()

    async def __call__(self, publish: Publish) -> None:
        self.begun += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        publish("made")


async def test_many_callers_share_one_run() -> None:
    flights, work = SingleFlight[str](), Work()
    callers = [asyncio.create_task(flights.join("k", work)) for _ in range(50)]
    await settled()
    work.go_on.set()
    results = await asyncio.gather(*callers)
    assert work.begun == 1
    assert {value for value, _ in results} == {"made"}
    assert sum(led for _, led in results) == 1


async def test_different_keys_do_not_wait_for_each_other() -> None:
    flights, slow, fast = SingleFlight[str](), Work(), Work()
    waiting = asyncio.create_task(flights.join("slow", slow))
    fast.go_on.set()
    assert await flights.join("fast", fast) == ("made", True)
    slow.go_on.set()
    await waiting


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_cancelled_caller_leaves_the_others_unharmed(cancelled: int) -> None:
    flights, work = SingleFlight[str](), Work()
    callers = [asyncio.create_task(flights.join("k", work)) for _ in range(2)]
    await settled()
    callers[cancelled].cancel()
    await settled()
    work.go_on.set()
    assert (await callers[1 - cancelled])[0] == "made"
    assert (work.begun, work.cancelled) == (1, 0)


async def test_abandoned_work_is_cancelled() -> None:
    flights, work = SingleFlight[str](), Work()
    callers = [asyncio.create_task(flights.join("k", work)) for _ in range(3)]
    await settled()
    for caller in callers:
        caller.cancel()
    await settled()
    assert work.cancelled == 1
    assert "k" not in flights


async def test_caller_after_an_abandoned_run_starts_a_new_one() -> None:
    flights, work = SingleFlight[str](), Work()
    abandoned = asyncio.create_task(flights.join("k", work))
    await settled()
    abandoned.cancel()
    await settled()
    work.go_on.set()
    assert await flights.join("k", work) == ("made", True)
    assert work.begun == 2


async def test_failure_reaches_all_and_the_next_caller_tries_anew() -> None:
    flights, begun = SingleFlight[str](), asyncio.Event()

    async def fail(publish: Publish) -> None:
        await begun.wait()
        raise ValueError("broken")

    callers = [asyncio.create_task(flights.join("k", fail)) for _ in range(3)]
    await settled()
    begun.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["broken"] * 3

    async def succeed(publish: Publish) -> None:
        publish("made")

    assert await flights.join("k", succeed) == ("made", True)


async def test_work_after_the_result_delays_no_caller() -> None:
    flights, stored = SingleFlight[str](), asyncio.Event()

    async def make_then_store(publish: Publish) -> None:
        publish("made")
        await stored.wait()

    assert await asyncio.wait_for(flights.join("k", make_then_store), 1) == ("made", True)
    assert await asyncio.wait_for(flights.join("k", make_then_store), 1) == ("made", False)
    stored.set()
    await settled()
    assert "k" not in flights


async def test_close_cancels_work_in_flight() -> None:
    flights, work = SingleFlight[str](), Work()
    caller = asyncio.create_task(flights.join("k", work))
    await settled()
    await flights.close()
    assert work.cancelled == 1
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_work_without_a_result_is_an_error() -> None:
    async def nothing(publish: Publish) -> None:
        return

    lead: Callable[[Publish], Awaitable[None]] = nothing
    with pytest.raises(RuntimeError, match="without a result"):
        await SingleFlight[str]().join("k", lead)


async def test_a_failure_after_the_result_is_logged_and_reaches_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    flights = SingleFlight[str]()

    async def make_and_fail_to_store(publish: Publish) -> None:
        publish("made")
        raise OSError("disk full")

    assert await flights.join("k", make_and_fail_to_store) == ("made", True)
    await settled()
    assert "k" not in flights
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]] == [
        ("disk full",)
    ]
