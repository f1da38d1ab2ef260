"""Export of spans by OTLP (extra `tracing`). The standard OTEL_* variables select exporter and sampling."""

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def otlp_provider() -> TracerProvider:
    """Sends spans by OTLP over gRPC, in the background. `OTEL_SERVICE_NAME` and the like override what is set here."""
    resource = Resource.create({SERVICE_NAME: "samserve"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
