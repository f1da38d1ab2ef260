"""Idle timeouts of bidirectional streams."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest
from opentelemetry.trace import NoOpTracer

from samserve.adapters.grpc.handlers.interactive import InteractiveHandler
from samserve.adapters.grpc.streams import converse
from samserve.domain.errors import InvalidArgument, StreamIdle
from samserve.observability.call import CallRecord, begin
from samserve.usecases.interactive import EditingSession, RefusedEdit
from samserve.usecases.observers import RequestObserver
from samserve.v1 import segmentation_pb2 as pb

IDLE_SECONDS = 0.2


class SlowSession:
    """Implements `Conversation`: answers one request, when it is let, and nothing else."""

    def __init__(self) -> None:
        self.working = False
        self.let = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def receive(self, request: str) -> None:
        self.working = True

    def end(self, failure: BaseException | None = None) -> None:
        if failure is not None:
            self._failed.set_exception(failure)

    async def close(self) -> None:
        pass

    async def answers(self) -> AsyncGenerator[str, None]:
        either: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.let.wait()), self._failed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self.let.is_set():
            self.working = False
            yield "answer"
        await self._failed


async def one_request() -> AsyncIterator[str]:
    yield "request"
    await asyncio.Event().wait()


async def test_the_idle_timeout_starts_after_a_pending_answer() -> None:
    session = SlowSession()
    answers = converse(session, one_request(), session.receive, IDLE_SECONDS)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(2.5 * IDLE_SECONDS)
    answered = asyncio.get_running_loop().time()
    session.let.set()
    assert await first == "answer"
    with pytest.raises(StreamIdle, match=r"no message received for 0\.2 s"):
        await anext(answers)
    assert asyncio.get_running_loop().time() - answered >= IDLE_SECONDS


async def test_a_client_that_sends_nothing_and_awaits_nothing_times_out() -> None:
    session = SlowSession()
    answers = converse(session, one_request(), lambda request: None, IDLE_SECONDS)
    with pytest.raises(StreamIdle):
        await anext(answers)


class RefusingSession:
    """Implements what `InteractiveHandler` needs of an `EditingSession`: answers without end, all of them refusals."""

    working = False
    is_closed = False

    async def answers(self) -> AsyncGenerator[RefusedEdit, None]:
        while True:
            yield RefusedEdit(1, InvalidArgument("undo", "there is nothing to undo"))

    def end(self, failure: BaseException | None = None) -> None:
        pass

    async def close(self) -> None:
        self.is_closed = True


async def silence() -> AsyncGenerator[pb.SegmentStreamRequest, None]:
    await asyncio.Event().wait()
    yield pb.SegmentStreamRequest()


async def test_a_stream_that_is_left_closes_its_session_at_once() -> None:
    begin(CallRecord("SegmentStream", "id", {}, cast(RequestObserver, None), NoOpTracer()))
    session = RefusingSession()
    handler = InteractiveHandler(lambda tenant: cast(EditingSession, session), max_image_bytes=1, idle_seconds=60)
    responses = handler.serve(silence(), "")
    await anext(responses)
    await responses.aclose()
    assert session.is_closed
