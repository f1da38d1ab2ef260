"""Turns are spaced for each user, in the order of asking, and users without a turn are forgotten."""

import asyncio
import time
import weakref

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


async def test_turns_are_spaced_for_each_user_separately() -> None:
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


async def test_turns_are_given_in_the_order_of_asking_and_one_interval_apart() -> None:
    rate = 50.0
    limiter = TenantRateLimiter(rate, time.monotonic)
    turns: list[tuple[int, float]] = []

    async def ask(number: int) -> None:
        await limiter.turn("a")
        turns.append((number, time.monotonic()))

    began = time.monotonic()
    await asyncio.gather(*map(ask, range(5)))
    assert [number for number, _ in turns] == [0, 1, 2, 3, 4]
    # A timer of asyncio may end by the clock's resolution too early.
    resolution = time.get_clock_info("monotonic").resolution
    assert all(at - began >= number / rate - resolution for number, at in turns)


class User:
    """Someone whose end can be seen."""


async def test_users_are_forgotten_once_their_turn_has_passed() -> None:
    clock = Clock()
    limiter = TenantRateLimiter(1, clock)
    users = []
    for _ in range(100):
        clock.now += 0.1
        user = User()
        await limiter.turn(user)
        users.append(weakref.ref(user))
        del user
    kept = [number for number, user in enumerate(users) if user() is not None]
    # Those of the last second, whose next turn is yet to come.
    assert kept
    assert min(kept) >= 89


async def test_a_turn_given_back_by_a_user_without_one_is_ignored() -> None:
    limiter = TenantRateLimiter(0.1, Clock())
    limiter.give_back("a")
    assert not await waits(limiter, "a")
    assert await waits(limiter, "a")
