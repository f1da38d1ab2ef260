"""Common parts of bidirectional streams: concurrent reading and answering, idle timeouts, and errors of single
messages."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from samserve.adapters.grpc.errors import status_code
from samserve.adapters.grpc.messages import duration
from samserve.domain.errors import InvalidArgument, SamserveError, StreamIdle, TransientFailure
from samserve.observability.call import current_call
from samserve.v1 import segmentation_pb2 as pb

A = TypeVar("A", covariant=True)


class Conversation(Protocol[A]):
    """A session as driven by `converse`."""

    @property
    def working(self) -> bool:
        """True while an answer is being computed, so that a silent client is waiting."""
        ...

    def answers(self) -> AsyncGenerator[A, None]:
        """The answers, until the session has ended."""
        ...

    def end(self, failure: BaseException | None = None) -> None:
        """End the input, or pass a failure on to the client."""
        ...

    async def close(self) -> None:
        """Free all resources."""
        ...


async def next_request(requests: AsyncIterator[Any], idle_seconds: float) -> Any:
    """The client's next message, or None if it has ended its side.

    Raises:
        StreamIdle: it sent nothing for so long.
    """
    try:
        async with asyncio.timeout(idle_seconds):
            return await anext(requests, None)
    except TimeoutError:
        raise _silent(idle_seconds) from None


async def converse(
    session: Conversation[A], requests: AsyncIterator[Any], receive: Callable[[Any], None], idle_seconds: float
) -> AsyncGenerator[A, None]:
    """Pass each request to `receive` as it arrives, and yield the session's answers as they are taken.

    What `receive` raises ends the stream, and so does a client that sends nothing for `idle_seconds` and waits for no
    answer.
    """
    clock = asyncio.get_running_loop().time
    last_news = clock()

    async def read() -> None:
        nonlocal last_news
        try:
            async for request in requests:
                last_news = clock()
                receive(request)
            session.end()
        except Exception as error:
            session.end(error)

    async def watch() -> None:
        nonlocal last_news
        while not reading.done():
            if session.working:
                last_news = clock()
            left = last_news + idle_seconds - clock()
            if left <= 0:
                session.end(_silent(idle_seconds))
                return
            await asyncio.sleep(left)

    reading = asyncio.create_task(read())
    watching = asyncio.create_task(watch())
    try:
        async with aclosing(session.answers()) as answers:
            async for answer in answers:
                last_news = clock()
                yield answer
    finally:
        reading.cancel()
        watching.cancel()
        await asyncio.gather(reading, watching, return_exceptions=True)
        await session.close()


def _silent(idle_seconds: float) -> StreamIdle:
    return StreamIdle(f"no message received for {idle_seconds:g} s")


def error_message(sequence: int, error: SamserveError, field: str = "") -> pb.MessageError:
    """An error message that does not end the stream. It is recorded in the call.

    Args:
        field: what the client sent, where no field of it is to blame.
    """
    current_call().refused(error)
    code = status_code(error).value[0]
    message = pb.MessageError(sequence=sequence, code=code, field=field, description=str(error))
    if isinstance(error, InvalidArgument):
        message.field, message.description = error.field, error.description
    if isinstance(error, TransientFailure):
        message.retry_after.CopyFrom(duration(error.retry_after_seconds))
    return message


def seconds(message: Duration) -> float:
    """Convert a duration to seconds, including durations that are too long for a timedelta."""
    return message.seconds + message.nanos / 1e9
