"""What waits in a mailbox, in which order it is read, and how reading ends."""

import asyncio
from contextlib import aclosing

import pytest

from samserve.usecases.mailbox import Mailbox


async def read(mailbox: Mailbox[int, str]) -> list[int | str]:
    return [message async for message in mailbox.read()]


async def test_the_latest_message_replaces_one_that_waits() -> None:
    mailbox: Mailbox[int, str] = Mailbox()
    for message in range(3):
        mailbox.put(message)
        assert mailbox.latest == message
    mailbox.end()
    assert await read(mailbox) == [2]
    assert mailbox.latest is None


async def test_refusals_are_read_before_the_message_and_only_the_last_are_kept() -> None:
    mailbox: Mailbox[int, str] = Mailbox()
    mailbox.put(0)
    for number in range(1000):
        mailbox.refuse(str(number))
    mailbox.end()
    *refusals, message = await read(mailbox)
    assert message == 0
    assert refusals == [str(number) for number in range(1000 - len(refusals), 1000)]
    assert 0 < len(refusals) < 100


async def test_what_comes_while_a_message_is_answered_is_read_after_it() -> None:
    mailbox: Mailbox[int, str] = Mailbox()
    mailbox.put(1)
    async with aclosing(mailbox.read()) as messages:
        assert await anext(messages) == 1
        mailbox.put(2)
        mailbox.put(3)
        mailbox.refuse("a")
        mailbox.end()
        assert [message async for message in messages] == ["a", 3]


async def test_reading_waits_for_news() -> None:
    mailbox: Mailbox[int, str] = Mailbox()
    reading = asyncio.ensure_future(read(mailbox))
    await asyncio.sleep(0)
    mailbox.put(1)
    await asyncio.sleep(0)
    assert mailbox.latest is None
    assert not reading.done()
    mailbox.end()
    assert await reading == [1]


async def test_a_failure_is_raised_after_refusals_and_in_place_of_the_message() -> None:
    mailbox: Mailbox[int, str] = Mailbox()
    mailbox.put(1)
    mailbox.refuse("a")
    mailbox.end(ValueError("first"))
    mailbox.end(ValueError("second"))
    async with aclosing(mailbox.read()) as messages:
        assert await anext(messages) == "a"
        with pytest.raises(ValueError, match="first"):
            await anext(messages)


async def test_a_failure_while_a_message_is_answered_is_not_lost() -> None:
    mailbox: Mailbox[int, str] = Mailbox()
    mailbox.put(1)
    async with aclosing(mailbox.read()) as messages:
        assert await anext(messages) == 1
        mailbox.end(ValueError("late"))
        with pytest.raises(ValueError, match="late"):
            await anext(messages)
