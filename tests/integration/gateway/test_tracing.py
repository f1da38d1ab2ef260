"""One trace from the caller's context through the stages of a call."""

import asyncio
import sys
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from samserve.gateway.process import TracingMissing
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, refusal, serving
from tests.support.traces import PARENT, SAMPLED, TRACE, traced

SEGMENT = "samserve.v1.SegmentationService/Segment"
CLICK = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])


def parent_of(span: ReadableSpan) -> int | None:
    """Its id."""
    return span.parent.span_id if span.parent is not None else None


def tree(spans: tuple[ReadableSpan, ...], parent: int) -> dict[str, Any]:
    """Names of the spans under this one, each with those under it."""
    return {span.name: tree(spans, span.context.span_id) for span in spans if parent_of(span) == parent}


async def test_a_call_continues_the_callers_trace_through_its_stages() -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as served:
        metadata = (*SAMPLED, ("x-request-id", "a-1"), ("samserve-tenant", "b"))
        answer = await served.stub.Segment(CLICK, metadata=metadata)
    whole, *stages = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert (whole.name, whole.kind, whole.status.status_code) == (SEGMENT, SpanKind.SERVER, StatusCode.UNSET)
    assert [parent_of(span) for span in (whole, *stages)] == [PARENT] + [whole.context.span_id] * len(stages)
    assert {span.context.trace_id for span in (whole, *stages)} == {TRACE}
    # The second look is that of the one who encodes: somebody may have done so meanwhile.
    names = [span.name for span in stages]
    assert names == ["cache.get", "cache.get", "image_decode", "encode", "cache.put", "mask_decode", "post_process"]
    assert all((span.end_time or 0) <= (whole.end_time or 0) for span in stages)
    expected = {
        "samserve.request_id": "a-1",
        "samserve.tenant": "b",
        "samserve.image_id": answer.image_id,
        "samserve.embedding": "cold",
        "rpc.response.status_code": "OK",
    }
    assert expected.items() <= dict(whole.attributes or {}).items()


async def test_a_warm_call_has_no_span_of_the_encoder() -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as served:
        await served.stub.Segment(CLICK)
        exporter.clear()
        await served.stub.Segment(CLICK, metadata=SAMPLED)
    spans = exporter.get_finished_spans()
    assert tree(spans, PARENT) == {SEGMENT: {"cache.get": {}, "mask_decode": {}, "post_process": {}}}
    (look,) = (span for span in spans if span.name == "cache.get")
    assert look.attributes == {"samserve.found_in": "memory"}


async def test_encode_spans_are_children_of_their_streams_span() -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as served:
        call: Any = served.stub.SegmentGaze(metadata=SAMPLED)
        await call.write(pb.SegmentGazeRequest(config=pb.GazeConfig()))
        await call.write(pb.SegmentGazeRequest(frame=pb.GazeFrame(sequence=1, image=CLICK.image)))
        has_mask, sequence = False, 0
        async with asyncio.timeout(60):
            while not has_mask:
                sequence += 1
                nanoseconds = sequence * 10**7
                sample = pb.GazeSample(sequence=sequence, timestamp_nanoseconds=nanoseconds, x=20, y=15, valid=True)
                await call.write(pb.SegmentGazeRequest(sample=sample))
                has_mask = (await call.read()).answer.HasField("mask")
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
    under = tree(exporter.get_finished_spans(), PARENT)["samserve.v1.SegmentationService/SegmentGaze"]
    assert {"encode", "mask_decode", "post_process"} <= set(under)


async def test_only_server_errors_mark_the_span_as_failed() -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter, backend="triton", triton="127.0.0.1:1") as served:
        await refusal(served.stub.Segment(CLICK))
    (down,) = exporter.get_finished_spans()
    assert (down.status.status_code, down.status.description) == (StatusCode.ERROR, "UNAVAILABLE")
    exporter.clear()
    async with traced(exporter) as served:
        await refusal(served.stub.Segment(pb.SegmentRequest()))
    (bad,) = exporter.get_finished_spans()
    assert bad.status.status_code is StatusCode.UNSET
    assert bad.attributes is not None
    assert bad.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("traceparent", ["", "no trace", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_call_without_a_trace_begins_one(traceparent: str) -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as served:
        await served.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("traceparent", traceparent),))
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


async def test_unsampled_traces_are_not_exported() -> None:
    exporter = InMemorySpanExporter()
    async with traced(exporter) as served:
        await served.stub.Segment(CLICK, metadata=(("traceparent", f"00-{TRACE:032x}-{PARENT:016x}-00"),))
    assert exporter.get_finished_spans() == ()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans by OTLP."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.received += request.resource_spans
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_spans_go_where_the_standard_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with serving(tracing=True) as served:
        await served.stub.Segment(CLICK, metadata=SAMPLED)
    await asyncio.to_thread(server.stop(None).wait)
    # Spans of a call that takes some seconds are sent in several parts.
    for part in collector.received:
        told = {attribute.key: attribute.value.string_value for attribute in part.resource.attributes}
        assert (told["service.name"], told["deployment.environment.name"]) == ("samserve", "test")
    spans = [span for part in collector.received for scope in part.scope_spans for span in scope.spans]
    assert SEGMENT in {span.name for span in spans}
    assert {int.from_bytes(span.trace_id) for span in spans} == {TRACE}


async def test_a_gateway_without_the_tracing_extra_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "samserve.observability.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingMissing, match=r"opentelemetry\.sdk\.trace is missing: pip install -e '\.\[tracing\]'"):
        async with serving(tracing=True):
            pass
    async with serving() as served:
        assert (await served.stub.Segment(CLICK)).results
