"""Spans that Triton sends to a collector are children of the gateway's spans."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from samserve.domain.manifest import DECODER, ENCODER
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo
from tests.support.traces import SAMPLED, TRACE, traced
from tests.support.triton_server import TritonServer


class Collector:
    """Takes spans by OTLP over HTTP, in JSON as Triton sends them."""

    def __init__(self) -> None:
        spans: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                spans.extend(s for r in request["resourceSpans"] for scope in r["scopeSpans"] for s in scope["spans"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None: ...

        self.spans = spans
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def of(self, trace_id: int) -> dict[str, set[int]]:
        """By the model that Triton's requests in this trace ran: the ids of the spans that they lie under."""
        spans = [span for span in list(self.spans) if int(span["traceId"], 16) == trace_id]
        requests = {span["spanId"]: int(span["parentSpanId"], 16) for span in spans if span["name"] == "InferRequest"}
        models: dict[str, set[int]] = {}
        for span in spans:
            if span["parentSpanId"] in requests:
                models.setdefault(span["name"], set()).add(requests[span["parentSpanId"]])
        return models


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


async def test_triton_continues_the_trace(new_triton: Callable[..., TritonServer], collector: Collector) -> None:
    url = f"http://127.0.0.1:{collector.server.server_port}/v1/traces"
    triton = new_triton(
        "--trace-config=mode=opentelemetry",
        "--trace-config=rate=1",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=opentelemetry,url={url}",
        "--trace-config=opentelemetry,bsp_schedule_delay=100",
    )
    triton.start()
    exporter = InMemorySpanExporter()
    async with traced(exporter, backend="triton", triton=triton.address, memory_cache_bytes=1 << 23) as served:
        # Triton's exporter may lose what it sends, so that one call is not always enough.
        async with asyncio.timeout(120):
            for seed in count():
                if len(collector.of(TRACE)) == 2:
                    break
                request = pb.SegmentRequest(image=pb.Image(data=photo(seed)), prompts=[PNG_CLICK])
                await served.stub.Segment(request, metadata=SAMPLED)
                await asyncio.sleep(0.5)
    spans = exporter.get_finished_spans()
    made = {name: {span.context.span_id for span in spans if span.name == name} for name in ("encode", "mask_decode")}
    under = collector.of(TRACE)
    assert set(under) == {ENCODER, DECODER}
    assert under[ENCODER] <= made["encode"]
    assert under[DECODER] <= made["mask_decode"]
