"""Turns are spaced for each user, in order, and nothing is kept of who has none."""

import asyncio

from samserve.usecases.load.rate_limit import TenantRateLimiter


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def waits(limiter: TenantRateLimiter, user: str) -> bool:
    """Whether a turn that is asked for now has to be waited for; it is given back if so."""
    asking = asyncio.ensure_future(limiter.turn(user))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if asking.done():
        return False
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return True


async def test_a_users_turns_are_spaced_and_another_users_are_not_theirs() -> None:
    clock = Clock()
    limiter = TenantRateLimiter(0.1, clock)
    assert not await waits(limiter, "a")
    assert await waits(limiter, "a")
    assert not await waits(limiter, "b")
    clock.now = 9.9
    assert await waits(limiter, "a")
    clock.now = 10.0
    assert not await waits(limiter, "a")
    assert await waits(limiter, "a")


async def test_a_turn_that_is_given_back_is_there_for_the_next() -> None:
    limiter = TenantRateLimiter(0.1, Clock())
    assert not await waits(limiter, "a")
    limiter.give_back("a")
    assert not await waits(limiter, "a")


async def test_turns_come_in_the_order_in_which_they_are_asked_for() -> None:
    limiter = TenantRateLimiter(100)
    order: list[int] = []

    async def ask(number: int) -> None:
        await limiter.turn("a")
        order.append(number)

    await asyncio.gather(*map(ask, range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_nothing_is_kept_of_users_whose_turn_has_passed() -> None:
    clock = Clock()
    limiter = TenantRateLimiter(1, clock)
    for number in range(1000):
        clock.now += 0.1
        await limiter.turn(str(number))
    assert len(limiter._next_seconds) <= 11
