"""Routing, swapping and early refusal of calls, on a real gRPC server; and what a refused call leaves behind."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry

from samserve.adapters.grpc.interceptor import RequestInterceptor
from samserve.api import RPCS, SERVICE_NAME
from samserve.observability.metrics.requests import RequestMetrics
from samserve.usecases.load.admission import Admission
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import refusal

SEGMENT = f"/{SERVICE_NAME}/Segment"
UNREADABLE = b"\xff"


class NamedServicer:
    """Answers `Segment`, and nothing else, by its own name, once it is let."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = asyncio.Event()
        self.let = asyncio.Event()

    async def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:  # noqa: N802
        self.begun.set()
        await self.let.wait()
        return pb.SegmentResponse(image_id=self.name)


@dataclass(frozen=True)
class Bench:
    """An interceptor, bare of any servicer, on a server."""

    interceptor: RequestInterceptor
    requests: Admission
    channel: grpc.aio.Channel

    def swap(self, servicer: NamedServicer) -> None:
        self.interceptor.swap(servicer)  # type: ignore[arg-type]

    def segment(self) -> Any:
        call: Any = self.channel.unary_unary(SEGMENT, response_deserializer=pb.SegmentResponse.FromString)
        return call(pb.SegmentRequest().SerializeToString())


def new_interceptor(requests: Admission, registry: CollectorRegistry | None = None) -> RequestInterceptor:
    return RequestInterceptor(
        RequestMetrics(registry or CollectorRegistry()),
        NoOpTracer(),
        requests,
        Admission("streams", 1, 1.0),
        idle_seconds=60.0,
        max_message_bytes=1 << 20,
    )


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    requests = Admission("requests", 1, 2.0)
    interceptor = new_interceptor(requests)
    server = grpc.aio.server(interceptors=[interceptor])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Bench(interceptor, requests, channel)
    finally:
        await server.stop(None)


async def test_a_call_under_way_keeps_its_servicer_and_the_next_goes_to_the_new_one() -> None:
    old, new = NamedServicer("old"), NamedServicer("new")
    new.let.set()
    async with bench() as served:
        served.swap(old)
        under_way = asyncio.ensure_future(served.segment())
        await old.begun.wait()
        served.swap(new)
        assert (await served.segment()).image_id == "new"
        old.let.set()
        assert (await under_way).image_id == "old"


@pytest.mark.parametrize("rpc", sorted(RPCS))
async def test_without_a_servicer_every_rpc_is_refused_unparsed_and_without_a_head(rpc: str) -> None:
    kind = ("stream" if RPCS[rpc].client_streaming else "unary") + (
        "_stream" if RPCS[rpc].server_streaming else "_unary"
    )
    async with bench() as served:
        method: Any = getattr(served.channel, kind)(f"/{SERVICE_NAME}/{rpc}")
        call = method() if RPCS[rpc].client_streaming else method(UNREADABLE)
        refused = await refusal(call.read() if RPCS[rpc].server_streaming else call)
        assert (refused.code, refused.retry_after_seconds) == (grpc.StatusCode.UNAVAILABLE, 1.0)
        assert not dict(await call.initial_metadata())
        assert "x-request-id" in dict(await call.trailing_metadata())


async def test_a_call_without_a_place_is_refused_unparsed() -> None:
    async with bench() as served:
        served.swap(NamedServicer("any"))
        unreadable: Any = served.channel.unary_unary(SEGMENT)
        with served.requests.admit():
            refused = await refusal(unreadable(UNREADABLE))
        assert (refused.code, refused.retry_after_seconds) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 2.0)
        assert (await refusal(unreadable(UNREADABLE))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_methods_that_the_service_does_not_have_are_left_to_grpc() -> None:
    async with bench() as served:
        served.swap(NamedServicer("any"))
        for method in (f"/{SERVICE_NAME}/NoSuch", "/no.Such/Segment"):
            unknown: Any = served.channel.unary_unary(method)
            assert (await refusal(unknown(b""))).code is grpc.StatusCode.UNIMPLEMENTED


class EndedContext:
    """A call that gRPC has ended by the time its response is ready."""

    def __init__(self, error: Exception, remaining_seconds: float) -> None:
        self._error = error
        self._remaining_seconds = iter([60.0, remaining_seconds])

    def time_remaining(self) -> float:
        return next(self._remaining_seconds)

    async def send_initial_metadata(self, metadata: object) -> None:
        raise self._error


@pytest.mark.parametrize("error", [grpc.aio.InternalError(), grpc.aio.UsageError()], ids=["internal", "usage"])
@pytest.mark.parametrize(("remaining_seconds", "code"), [(30.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")])
async def test_a_response_that_is_ready_after_its_call_has_ended_is_no_fault_of_the_gateway(
    error: Exception, remaining_seconds: float, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    interceptor = new_interceptor(Admission("requests", 1, 1.0), registry)
    servicer = NamedServicer("any")
    servicer.let.set()
    interceptor.swap(servicer)  # type: ignore[arg-type]
    details: Any = SimpleNamespace(method=SEGMENT, invocation_metadata=())
    handler: Any = await interceptor.intercept_service(None, details)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await handler.unary_unary(b"", EndedContext(error, remaining_seconds))
    counted = registry.get_sample_value("samserve_requests_total", {"rpc": "Segment", "code": code})
    assert counted == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


class Bytes(bytearray):
    """Bytes whose end can be seen."""


class RefusedContext:
    """What a call that is refused at once asks of its context."""

    def time_remaining(self) -> None:
        return None

    async def abort(self, code: grpc.StatusCode, details: str, metadata: object) -> None:
        raise grpc.aio.AbortError


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("full", [True, False], ids=["no place", "unreadable"])
async def test_a_refused_call_keeps_no_message_until_garbage_is_collected(full: bool) -> None:
    requests = Admission("requests", 0 if full else 1, 1.0)
    interceptor = new_interceptor(requests)
    interceptor.swap(NamedServicer("any"))  # type: ignore[arg-type]
    details: Any = SimpleNamespace(method=SEGMENT, invocation_metadata=())

    async def call(message: Bytes) -> None:
        handler: Any = await interceptor.intercept_service(None, details)  # type: ignore[arg-type]
        with pytest.raises(grpc.aio.AbortError):
            await handler.unary_unary(message, RefusedContext())

    message = Bytes(UNREADABLE)
    seen = weakref.ref(message)
    await call(message)
    del message
    assert seen() is None
