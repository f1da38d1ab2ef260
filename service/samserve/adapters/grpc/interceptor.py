"""Outermost layer of a call: selects the servicer, rejects early, maps errors to statuses, and records the call."""

# grpc's own classes are generic only for the type checker.
from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor
from opentelemetry.trace import Tracer

from samserve.adapters.grpc.errors import abort, status_code
from samserve.adapters.grpc.wire import Context, Unread, Wire
from samserve.api import REQUEST_ID_METADATA_KEY, RPCS, SERVICE_NAME
from samserve.domain.errors import RETRY_AFTER_SECONDS, ModelUnavailable, SamserveError, ShuttingDown, StreamIdle
from samserve.observability.call import CallRecord, begin
from samserve.observability.tracing import call_span
from samserve.usecases.load.admission import Admission
from samserve.usecases.observers import RequestObserver
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceServicer

_log = logging.getLogger(__name__)
_calls_log = logging.getLogger("samserve.calls")

Serve: TypeAlias = Callable[[Any, Context], Any]

_RPCS = {f"/{SERVICE_NAME}/{name}": rpc for name, rpc in RPCS.items()}
_ADMITTED = {"EmbedImage", "GetEmbedding", "Segment", "GenerateMasks", "DetectEdges"}
"""Rpcs whose use cases count towards the limit of requests."""

# It is returned as metadata and logged. Ids with characters that either cannot represent are replaced.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_RECONNECT_SECONDS = 0.5
_GONE_SECONDS = 0.01
_CLOCK_SECONDS = 0.01
"""gRPC's timers may end a call this much before its deadline."""
_STOPPING = "the gateway is shutting down; reconnect"

_ENDED = (grpc.aio.InternalError, grpc.aio.UsageError)
"""Exceptions raised when using a call that gRPC has ended."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call, and the servicer's method when it started; None if there was no servicer."""

    rpc: MethodDescriptor
    record: CallRecord
    serve: Serve | None


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Serves the calls of `SegmentationService`. Calls of other services (health, reflection) pass through.

    A request id is taken from the metadata `x-request-id`, or made, and sent back. A call that cannot be served is
    refused before its message is parsed: its deadline has passed, there is no servicer yet, or no place is free. Domain
    errors become statuses; any other exception is logged with the id and answered by a constant text. A client that
    takes no response for too long loses its stream; so do all bidirectional streams when the server drains, for their
    clients would never end them.

    Attributes:
        in_flight: the tasks of its calls, from their metadata on until gRPC is done with them.

    Args:
        requests: admission of single images and their prompts.
        streams: admission of bidirectional streams.
        idle_seconds: longest wait for a client to take a response of a stream.
        max_message_bytes: of one response.
    """

    def __init__(
        self,
        observer: RequestObserver,
        tracer: Tracer,
        requests: Admission,
        streams: Admission,
        *,
        idle_seconds: float,
        max_message_bytes: int,
    ) -> None:
        self._observer = observer
        self._tracer = tracer
        self._requests = requests
        self._streams = streams
        self._idle_seconds = idle_seconds
        self._max_message_bytes = max_message_bytes
        self._servicer: SegmentationServiceServicer | None = None
        self._draining = False
        self._open: set[asyncio.Task[None]] = set()
        self.in_flight: set[asyncio.Task[Any]] = set()

    def swap(self, servicer: SegmentationServiceServicer) -> None:
        """Replace the servicer for calls that start from now on. Calls in flight keep theirs."""
        self._servicer = servicer

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
        """The handler of a call; it takes and returns bytes."""
        rpc = _RPCS.get(handler_call_details.method)
        if rpc is None:
            return await continuation(handler_call_details)
        task = asyncio.current_task()
        assert task is not None
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)
        record = self._record(rpc.name, handler_call_details.invocation_metadata)
        call = _Call(rpc, record, getattr(self._servicer, rpc.name, None))
        # The type stubs know only the handlers of the synchronous server.
        answer: Any
        if rpc.client_streaming:
            answer = partial(self._bidirectional, call)
            return grpc.stream_stream_rpc_method_handler(answer)
        if rpc.server_streaming:
            answer = partial(self._stream, call)
            return grpc.unary_stream_rpc_method_handler(answer)
        answer = partial(self._unary, call)
        return grpc.unary_unary_rpc_method_handler(answer)

    def _record(self, rpc: str, metadata: Any) -> CallRecord:
        given = {key: value for key, value in metadata or () if isinstance(value, str)}
        request_id = given.get(REQUEST_ID_METADATA_KEY, "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        return CallRecord(rpc, request_id, given, self._observer, self._tracer)

    async def _unary(self, call: _Call, data: bytes, context: Context) -> bytes:
        async with self._guard(call, context, len(data)) as (serve, wire):
            return wire.serialize(await serve(wire.parse(data), context))

    async def _stream(self, call: _Call, data: bytes, context: Context) -> None:
        async with self._guard(call, context, len(data)) as (serve, wire):
            unread = await wire.write_all(serve(wire.parse(data), context), self._idle_seconds)
            if unread is not None:
                await self._leave(unread)

    async def _bidirectional(self, call: _Call, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._guard(call, context) as (serve, wire):
            if self._draining:
                raise ShuttingDown(_STOPPING, _RECONNECT_SECONDS)
            task = asyncio.current_task()
            assert task is not None
            unread = None
            self._open.add(task)
            try:
                with self._streams.admit():
                    await wire.send_head()
                    responses = serve(wire.parse_all(requests), context)
                    unread = await wire.write_all(responses, self._idle_seconds)
                if unread is not None:
                    await self._leave(unread)
                # When reading, a disconnected client looks like one that has finished sending, until gRPC is asked.
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

    async def _leave(self, unread: Unread) -> NoReturn:
        # gRPC sends no status while a response is not taken, so the client receives the status when it reads again.
        await unread
        raise StreamIdle(f"the client did not read a response for {self._idle_seconds:g} s")

    @asynccontextmanager
    async def _guard(self, call: _Call, context: Context, request_bytes: int = 0) -> AsyncIterator[tuple[Serve, Wire]]:
        """Reject the call, or have it served inside the context. Then answer raised errors and record the call."""
        record = call.record
        record.request_bytes = request_bytes
        begin(record)
        wire = Wire(call.rpc, record, context, self._max_message_bytes)
        started, code = time.perf_counter(), grpc.StatusCode.OK
        try:
            with call_span(self._tracer, record):
                try:
                    if _expired(context):
                        code = grpc.StatusCode.DEADLINE_EXCEEDED
                        await context.abort(code, "the deadline expired before the call started", wire.head)
                    if call.serve is None:
                        raise ModelUnavailable("the models are not loaded yet", RETRY_AFTER_SECONDS)
                    if call.rpc.name in _ADMITTED:
                        self._requests.check()
                    yield call.serve, wire
                    await wire.send_head()
                except SamserveError as error:
                    code = status_code(error)
                    record.refused(error)
                    await abort(context, error, wire.head)
                except grpc.aio.AbortError:
                    raise
                except (asyncio.CancelledError, *_ENDED):
                    is_late = _expired(context, _CLOCK_SECONDS)
                    code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
                    raise
                except Exception:
                    code = grpc.StatusCode.INTERNAL
                    _log.exception("%s failed", record.rpc)
                    text = f"internal error; give the operator request id {record.request_id}"
                    await context.abort(code, text, wire.head)
                finally:
                    record.ended(code.name, time.perf_counter() - started)
        except _ENDED:
            # Nobody receives the status: gRPC has ended the call at its deadline, or the client has disconnected.
            raise asyncio.CancelledError from None
        finally:
            summary = record.summary()
            _calls_log.info("%s %s in %.1f ms", record.rpc, record.code, 1000 * record.seconds, extra=summary)


def _expired(context: Context, slack_seconds: float = 0.0) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= slack_seconds
