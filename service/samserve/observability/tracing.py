"""Spans of calls, by OpenTelemetry's API. Without its SDK (extra `tracing`) nothing is recorded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from samserve import api
from samserve.observability.call import CallRecord

# Without the baggage propagator: baggage is not used, and malformed entries would each log a warning.
_TRACE_CONTEXT = TraceContextTextMapPropagator()

# By OpenTelemetry's conventions for gRPC servers, these are errors of the server and all others errors of the caller.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

# Attributes that a span has anyway.
_TWICE = {"trace_id", "rpc", "code", "seconds"}


@contextmanager
def call_span(tracer: Tracer, call: CallRecord) -> Iterator[None]:
    """The span of a call, as a child of the span in the call's metadata. Sets the call's `trace_id`."""
    method = f"{api.SERVICE_NAME}/{call.rpc}"
    span = tracer.start_span(method, context=_TRACE_CONTEXT.extract(call.metadata), kind=SpanKind.SERVER)
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        if span.get_span_context().is_valid:
            call.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        try:
            yield
        finally:
            if span.is_recording():
                told = call.ids() | call.summary()
                span.set_attributes({f"samserve.{name}": value for name, value in told.items() if name not in _TWICE})
                span.set_attributes(
                    {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": call.code}
                )
                if call.code in _FAULTS:
                    span.set_status(Status(StatusCode.ERROR, call.code))


def trace_headers() -> Mapping[str, str]:
    """Metadata for calls to other servers, which make their spans children of the current span."""
    carrier: dict[str, str] = {}
    _TRACE_CONTEXT.inject(carrier)
    return carrier
