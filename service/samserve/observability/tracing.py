"""OpenTelemetry traces (extra `tracing`). The standard OTEL_* variables select exporter and sampling."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from samserve import api
from samserve.observability.call import CallRecord, Note

# Without the baggage propagator: baggage is not used, and malformed entries would each log a warning.
_TRACE_CONTEXT = TraceContextTextMapPropagator()

# By OpenTelemetry's conventions for gRPC servers, these are errors of the server and all others errors of the caller.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

# Attributes that a span has anyway.
_TWICE = {"trace_id", "rpc", "code", "seconds"}


def otlp_provider() -> TracerProvider:
    """Exports spans by OTLP over gRPC, in the background. `OTEL_SERVICE_NAME` and similar variables override these
    values."""
    resource = Resource.create({SERVICE_NAME: "samserve"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class OpenTelemetryTracer:
    """Implements `Tracer`.

    Args:
        provider: it is shut down by `close`, and sends what it has before.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("samserve")

    @contextmanager
    def call(self, call: CallRecord) -> Iterator[None]:
        method = f"{api.SERVICE_NAME}/{call.rpc}"
        with self._tracer.start_as_current_span(
            method,
            context=_TRACE_CONTEXT.extract(call.metadata),
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            call.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
            try:
                yield
            finally:
                told = call.ids() | call.summary()
                span.set_attributes({f"samserve.{name}": value for name, value in told.items() if name not in _TWICE})
                span.set_attributes(
                    {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": call.code}
                )
                if call.code in _FAULTS:
                    span.set_status(Status(StatusCode.ERROR, call.code))

    @contextmanager
    def span(self, name: str) -> Iterator[Note]:
        with self._tracer.start_as_current_span(name) as span:
            yield span.set_attribute

    def past_span(self, name: str, seconds: float) -> None:
        now = time.time_ns()
        self._tracer.start_span(name, start_time=now - round(seconds * 1e9)).end(now)

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        _TRACE_CONTEXT.inject(carrier)
        return carrier

    def close(self) -> None:
        """Export the remaining spans."""
        self._provider.shutdown()
