"""What the bidirectional calls have in common: reading beside answering, silence, and faults of single messages."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from samserve.adapters.grpc_errors import status_code
from samserve.adapters.grpc_messages import duration
from samserve.calls import current_call
from samserve.domain.errors import InvalidArgument, RetryLater, SamserveError, StreamIdle
from samserve.v1 import segmentation_pb2 as pb

A = TypeVar("A", covariant=True)


class Conversation(Protocol[A]):
    """A session as `converse` drives it."""

    @property
    def working(self) -> bool:
        """Whether the client has cause to wait."""
        ...

    def answers(self) -> AsyncGenerator[A, None]:
        """The answers, until the session has ended."""
        ...

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come, or the client must hear of a failure."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


def _never() -> float:
    return -math.inf


async def next_request(
    requests: AsyncIterator[Any], idle_seconds: float, answered: Callable[[], float] = _never
) -> Any:
    """The client's next message, or None where it has ended its side.

    Args:
        answered: when the client had its last answer, by the loop's clock: until then it had cause to be silent.

    Raises:
        StreamIdle: it sent nothing for so long.
    """
    clock = asyncio.get_running_loop().time
    asked = clock()
    reading = asyncio.ensure_future(anext(requests, None))
    try:
        while not reading.done():
            left = max(asked, answered()) + idle_seconds - clock()
            if left <= 0:
                raise StreamIdle(f"nothing was sent for {idle_seconds:g} s")
            await asyncio.wait([reading], timeout=left)
        return reading.result()
    finally:
        reading.cancel()


async def converse(
    session: Conversation[A], requests: AsyncIterator[Any], receive: Callable[[Any], None], idle_seconds: float
) -> AsyncGenerator[A, None]:
    """Hand each request to `receive` as it comes, and pass the session's answers on as they are taken.

    What `receive` raises ends the stream.
    """
    clock = asyncio.get_running_loop().time
    last_answer = -math.inf

    def answered() -> float:
        return clock() if session.working else last_answer

    async def read() -> None:
        try:
            while (request := await next_request(requests, idle_seconds, answered)) is not None:
                receive(request)
            session.end()
        except Exception as error:
            session.end(error)

    reading = asyncio.create_task(read())
    try:
        async for answer in session.answers():
            last_answer = clock()
            yield answer
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await session.close()


def error_message(sequence: int, error: SamserveError, field: str = "") -> pb.MessageError:
    """A fault that does not end the stream; the call is told of it.

    Args:
        field: what the client sent, where no field of it is to blame.
    """
    current_call().refused(error)
    code = status_code(error).value[0]
    message = pb.MessageError(sequence=sequence, code=code, field=field, description=str(error))
    if isinstance(error, InvalidArgument):
        message.field, message.description = error.field, error.description
    if isinstance(error, RetryLater):
        message.retry_after.CopyFrom(duration(error.retry_after_seconds))
    return message


def seconds(message: Duration) -> float:
    """A message as seconds, also one that is too long for a timedelta."""
    return message.seconds + message.nanos / 1e9
