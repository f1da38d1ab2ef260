"""Traces by OpenTelemetry (extra `tracing`): where they go and what is sampled say the standard OTEL_ variables."""

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

# Not the baggage, which nothing here reads: entries of odd form would each be a warning in the log.
_TRACE_CONTEXT = TraceContextTextMapPropagator()

# OpenTelemetry's conventions for gRPC servers: these are faults of the server, all others the caller's.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

# A span has these itself.
_TWICE = {"trace_id", "rpc", "code", "seconds"}


def otlp_provider() -> TracerProvider:
    """Sends spans by OTLP over gRPC, in the background. `OTEL_SERVICE_NAME` and the like override what is set here."""
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
        """See `Tracer.call`."""
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
        """See `Tracer.span`."""
        with self._tracer.start_as_current_span(name) as span:
            yield span.set_attribute

    def past_span(self, name: str, seconds: float) -> None:
        """See `Tracer.past_span`."""
        now = time.time_ns()
        self._tracer.start_span(name, start_time=now - round(seconds * 1e9)).end(now)

    def headers(self) -> Mapping[str, str]:
        """See `Tracer.headers`."""
        carrier: dict[str, str] = {}
        _TRACE_CONTEXT.inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what is still here."""
        self._provider.shutdown()
