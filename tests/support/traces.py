"""Gateways whose spans are kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tests.support.gateway import Served

TRACE, PARENT = 0x80E1AFED08E019FC1110464CFA66635C, 0x7A085853722DC6D2
SAMPLED = (("traceparent", f"00-{TRACE:032x}-{PARENT:016x}-01"),)


@asynccontextmanager
async def traced(exporter: InMemorySpanExporter, **settings: Any) -> AsyncIterator[Served]:
    """A gateway whose spans are kept here."""
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(1)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with (
        gateway(Settings(port=0, stop_grace_seconds=1, **settings), provider) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield Served(running, channel, SegmentationServiceStub(channel))
