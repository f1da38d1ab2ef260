"""The queue between the requests of a stream and its answers."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

M = TypeVar("M")
R = TypeVar("R")

_MAX_REFUSALS = 64
"""A client that sends nothing but faults and reads nothing is told of the last so many."""


class Mailbox(Generic[M, R]):
    """Holds the latest message of a stream, refusals of other messages, and the stream's end, for one reader.

    A new message replaces one that still waits, and only the last refusals are kept, so that a client that sends and
    does not read makes nothing grow.
    """

    def __init__(self) -> None:
        self._latest: M | None = None
        self._refusals: deque[R] = deque(maxlen=_MAX_REFUSALS)
        self._is_ended = False
        self._failure: BaseException | None = None
        self._news = asyncio.Event()

    @property
    def latest(self) -> M | None:
        """The message that waits, if any."""
        return self._latest

    def put(self, message: M) -> None:
        """Leave a message in place of the one that waits."""
        self._latest = message
        self._news.set()

    def refuse(self, refusal: R) -> None:
        """Leave a refusal beside the message."""
        self._refusals.append(refusal)
        self._news.set()

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come: reading ends after what waits, or raises the first failure."""
        self._is_ended = True
        self._failure = self._failure or failure
        self._news.set()

    async def read(self) -> AsyncGenerator[M | R, None]:
        """Refusals, then the latest message, again and again until the end.

        Raises:
            The failure, after the refusals and in place of the message that waits.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            while self._refusals:
                yield self._refusals.popleft()
            if self._failure is not None:
                raise self._failure
            if self._latest is not None:
                message, self._latest = self._latest, None
                yield message
            if self._is_ended and self._failure is None and self._latest is None and not self._refusals:
                return
