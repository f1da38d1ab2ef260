"""The outermost room of a call: its id, its status, what is told of it, and the bounds of streams."""

# grpc's own classes are generic to the type checker only.
from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc

from samserve.adapters.grpc.errors import abort, status_code
from samserve.api import REQUEST_ID_METADATA_KEY
from samserve.domain.errors import InvalidArgument, SamserveError, ShuttingDown, StreamIdle
from samserve.observability.call import CallRecord, Tracer, begin
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import RequestObserver

_log = logging.getLogger(__name__)
_calls_log = logging.getLogger("samserve.calls")

# It is sent back as metadata and written to the log: what neither can take is not a request id.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_RECONNECT_SECONDS = 0.5
_GONE_SECONDS = 0.01
_CLOCK_SECONDS = 0.01
"""gRPC's timers may end a call so long before the deadline that they tell."""
_STOPPING = "the gateway is shutting down; reconnect"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Unread: TypeAlias = "asyncio.Future[None]"
R = TypeVar("R")


_ENDED = (grpc.aio.InternalError, grpc.aio.UsageError)
"""What using a call raises that gRPC itself has ended."""


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of one service.

    A request id is taken from the metadata `x-request-id`, or made, and sent back. Domain errors become statuses;
    any other exception is logged with the id and answered by a constant text. A call whose deadline has passed is
    not begun. A client that takes no answer for too long loses its stream; so do all bidirectional streams when the
    server drains, for their clients would never end them.

    Attributes:
        in_flight: the tasks of its calls, from their metadata on until gRPC is done with them.

    Args:
        service: full name; other services (health, reflection) are left alone.
        streams: admission of bidirectional streams.
        idle_seconds: longest wait for a client to take an answer of a stream.
        max_message_bytes: of one message; for a larger one gRPC would blame the server.
    """

    def __init__(
        self,
        service: str,
        observer: RequestObserver,
        tracer: Tracer,
        streams: Admission,
        *,
        idle_seconds: float,
        max_message_bytes: int,
    ) -> None:
        self._prefix = f"/{service}/"
        self._observer = observer
        self._tracer = tracer
        self._streams = streams
        self._idle_seconds = idle_seconds
        self._max_message_bytes = max_message_bytes
        self._draining = False
        self._open: set[asyncio.Task[None]] = set()
        self.in_flight: set[asyncio.Task[Any]] = set()

    def drain(self) -> None:
        """End the bidirectional streams with UNAVAILABLE."""
        self._draining = True
        for task in self._open:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the handler of a call by one that does the above around it."""
        # The stubs know only the synchronous server's handlers.
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler  # type: ignore[no-any-return]
        task = asyncio.current_task()
        assert task is not None
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)
        rpc = handler_call_details.method.removeprefix(self._prefix)
        call = self._call(rpc, handler_call_details.invocation_metadata)
        deserialize, serialize = _measured(call, handler, self._max_message_bytes)
        if handler.unary_unary:
            unary = self._unary(call, handler.unary_unary, serialize)
            return grpc.unary_unary_rpc_method_handler(unary, deserialize)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(call, handler.unary_stream), deserialize, serialize
            )
        if handler.stream_stream:
            bidirectional = self._bidirectional(call, handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(bidirectional, deserialize, serialize)
        raise AssertionError(f"{rpc} is of a kind that the proto does not have")

    def _call(self, rpc: str, metadata: Any) -> CallRecord:
        given = {key: value for key, value in metadata or () if isinstance(value, str)}
        request_id = given.get(REQUEST_ID_METADATA_KEY, "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        return CallRecord(rpc, request_id, given, self._observer, self._tracer)

    def _unary(self, call: CallRecord, serve: Callable[[Any, Context], Any], serialize: Callable[[Any], bytes]) -> Any:
        async def answer(request: Any, context: Context) -> bytes:
            # Here and not by gRPC, which would do it once the call has ended to those who count it.
            return serialize(await serve(request, context))

        async def unary(request: Any, context: Context) -> bytes:
            return await self._guard(call, context, lambda head: answer(request, context))

        return unary

    def _stream(self, call: CallRecord, serve: Callable[[Any, Context], Any]) -> Any:
        async def answer(request: Any, context: Context, head: _Head) -> None:
            unread = await self._write(serve(request, context), context, head)
            if unread is not None:
                await self._leave(unread)

        async def stream(request: Any, context: Context) -> None:
            await self._guard(call, context, lambda head: answer(request, context, head))

        return stream

    def _bidirectional(self, call: CallRecord, serve: Callable[[Any, Context], Any]) -> Any:
        async def drainable(requests: Any, context: Context, head: _Head) -> None:
            task = asyncio.current_task()
            assert task is not None
            if self._draining:
                raise ShuttingDown(_STOPPING, _RECONNECT_SECONDS)
            unread = None
            self._open.add(task)
            try:
                unread = await self._converse(serve(requests, context), context, head)
                if unread is not None:
                    await self._leave(unread)
                # To the reading side a client that has gone looks like one that has said all, until gRPC is told.
                await asyncio.sleep(_GONE_SECONDS)
                if context.cancelled() or _expired(context):
                    raise asyncio.CancelledError
            except asyncio.CancelledError:
                if not self._draining or context.cancelled() or unread is not None:
                    raise
                task.uncancel()
                raise ShuttingDown(_STOPPING, _RECONNECT_SECONDS) from None
            finally:
                self._open.discard(task)

        async def bidirectional(requests: Any, context: Context) -> None:
            await self._guard(call, context, lambda head: drainable(requests, context, head))

        return bidirectional

    async def _converse(self, answers: AsyncGenerator[Any, None], context: Context, head: _Head) -> Unread | None:
        with self._streams.admit():
            await head.send()
            return await self._write(answers, context, head)

    async def _write(self, answers: AsyncGenerator[Any, None], context: Context, head: _Head) -> Unread | None:
        """Send the answers; that one, if any, which the client did not take in time."""
        # Left by whatever way, the generator is closed at once and frees what it holds.
        async with aclosing(answers):
            async for answer in answers:
                await head.send()
                write = asyncio.ensure_future(context.write(answer))
                try:
                    await asyncio.wait([write], timeout=self._idle_seconds)
                except asyncio.CancelledError:
                    write.cancel()
                    raise
                if not write.done():
                    return write
                await write
        return None

    async def _leave(self, unread: Unread) -> NoReturn:
        # gRPC sends no status past an answer that is not taken: the client hears of the end once it reads again.
        await unread
        raise StreamIdle(f"the client did not read a response for {self._idle_seconds:g} s")

    async def _guard(self, call: CallRecord, context: Context, serve: Callable[[_Head], Awaitable[R]]) -> R:
        begin(call)
        try:
            with call.traced():
                return await self._serve(call, context, serve)
        except _ENDED:
            # Nobody is there to be told: gRPC has ended the call by its deadline, or because the client has gone.
            raise asyncio.CancelledError from None
        finally:
            _calls_log.info("%s %s in %.1f ms", call.rpc, call.code, 1000 * call.seconds, extra=call.summary())

    async def _serve(self, call: CallRecord, context: Context, serve: Callable[[_Head], Awaitable[R]]) -> R:
        head = _Head(context, call.request_id)
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            if _expired(context):
                code = grpc.StatusCode.DEADLINE_EXCEEDED
                await context.abort(code, "the deadline expired before the call started", head.metadata)
            answer = await serve(head)
            await head.send()
            return answer
        except SamserveError as error:
            code = status_code(error)
            call.refused(error)
            await abort(context, error, head.metadata)
        except grpc.aio.AbortError:
            raise
        except (asyncio.CancelledError, *_ENDED):
            is_late = _expired(context, _CLOCK_SECONDS)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            _log.exception("%s failed", call.rpc)
            text = f"internal error; give the operator request id {call.request_id}"
            await context.abort(code, text, head.metadata)
        finally:
            call.ended(code.name, time.perf_counter() - started)


class _Head:
    """The metadata that goes ahead of a call's first answer, and instead with the status of a call that has none.

    A refused call is tried again, by the client's gRPC or by a proxy, only if nothing of an answer has come.
    """

    def __init__(self, context: Context, request_id: str) -> None:
        self.metadata = ((REQUEST_ID_METADATA_KEY, request_id),)
        self._context = context
        self._is_sent = False

    async def send(self) -> None:
        """Send it, unless that has been done."""
        if not self._is_sent:
            self._is_sent = True
            await self._context.send_initial_metadata(self.metadata)


def _expired(context: Context, slack_seconds: float = 0.0) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= slack_seconds


def _measured(
    call: CallRecord, handler: Any, max_message_bytes: int
) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    """The handler's deserializer and serializer, by which the call learns how much it received and sent."""

    def deserialize(message: bytes) -> Any:
        call.request_bytes += len(message)
        return handler.request_deserializer(message)

    def serialize(answer: Any) -> bytes:
        message: bytes = handler.response_serializer(answer)
        if len(message) > max_message_bytes:
            description = f"the response has {len(message)} bytes, the limit of a message is {max_message_bytes}"
            raise InvalidArgument("", f"{description}; send fewer prompts at a time or use another mask_format")
        call.response_bytes += len(message)
        return message

    return deserialize, serialize
