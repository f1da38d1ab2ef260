"""Measure what logs and traces cost a warm `Segment`, as ratios of CPU time, alternately in one process.

    python -m benchmarks.observability [--rounds N]

Three gateways on ONNX Runtime serve the same clicks: one without call logs, one that logs each call in JSON, and one
that also traces each call, with every trace sampled and serialised as for OTLP. Metrics are always counted; their cost
is measured separately. The client's time is part of all three measurements, so the ratios are a lower bound.
"""

import argparse
import asyncio
import logging
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import numpy as np
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider

from benchmarks.gateway import quartiles
from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings
from samserve.observability.call import CallRecord
from samserve.observability.logs import json_formatter
from samserve.observability.metrics import Metrics
from samserve.usecases.observers import Warmth
from samserve.usecases.ports import DecodedMasks
from samserve.usecases.timings import Stage, StageTimings
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub

PHOTO = Path(__file__).resolve().parents[1] / "docs" / "photos" / "coffee.jpg"
CALLS = 30
CONFIGURATIONS = ("metrics", "metrics, logs", "metrics, logs, traces")


class Serialised(SpanExporter):
    """Serialises spans as the OTLP exporter does, and sends nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Serialise the spans."""
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


async def compare(rounds: int) -> dict[str, list[float]]:
    """CPU seconds per call by configuration and round, without the first round."""
    log = logging.getLogger("samserve.calls")
    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(json_formatter())
    log.addHandler(handler)
    log.propagate = False
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Serialised()))
    providers = (NoOpTracerProvider(), NoOpTracerProvider(), provider)
    seconds: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
    async with AsyncExitStack() as stack:
        stubs = {}
        for name, tracer_provider in zip(CONFIGURATIONS, providers, strict=True):
            running = await stack.enter_async_context(gateway(Settings(port=0, onnxruntime_threads=1), tracer_provider))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(running.address))
            stubs[name] = SegmentationServiceStub(channel)
        photo = pb.Image(data=PHOTO.read_bytes())
        click = pb.Prompt(points=[pb.Point(x=300, y=200, label=pb.POINT_LABEL_FOREGROUND)])
        request = pb.SegmentRequest(prompts=[click])
        for stub in stubs.values():
            request.image.image_id = (await stub.EmbedImage(pb.EmbedImageRequest(image=photo))).image_id
        for turn in range(rounds + 1):
            for name, stub in stubs.items():
                log.setLevel(logging.WARNING if name == "metrics" else logging.INFO)
                started = time.process_time()
                for _ in range(CALLS):
                    await stub.Segment(request)
                if turn:
                    seconds[name].append((time.process_time() - started) / CALLS)
    return seconds


def counting(calls: int = 5000) -> float:
    """CPU seconds of counting one warm `Segment` in the metrics."""
    observer, nothing = Metrics().requests, np.zeros(0, np.float32)
    decoded = DecodedMasks(nothing, nothing, StageTimings({Stage.QUEUE: 0.001, Stage.MASK_DECODE: 0.001}))
    answered = decoded.timings + StageTimings({Stage.POST_PROCESS: 0.001})
    started = time.process_time()
    for _ in range(calls):
        call = CallRecord("Segment", "", {}, observer, NoOpTracer())
        call.warmth = Warmth.WARM
        observer.stage(Stage.CACHE, 0.001)
        call.decoded(decoded)
        call.answered(answered)
        call.prompted(1)
        call.ended("OK", 0.02)
    return (time.process_time() - started) / calls


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="What logs and traces cost a warm Segment.")
    parser.add_argument("--rounds", type=int, default=15)
    seconds = asyncio.run(compare(parser.parse_args().rounds))
    base = seconds[CONFIGURATIONS[0]]
    print("| with | CPU time per call | ratio to metrics alone, median | quartiles |\n|---|---|---|---|")
    for name, measured in seconds.items():
        ratios = [one / other for one, other in zip(measured, base, strict=True)]
        low, middle, high = quartiles(ratios)
        print(f"| {name} | {1000 * statistics.median(measured):.2f} ms | {middle:.3f} | {low:.3f} to {high:.3f} |")
    print(f"counting one warm call: {1e6 * counting():.0f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
