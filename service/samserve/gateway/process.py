"""The gateway's lifecycle, from start to stop."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from threadpoolctl import threadpool_limits

from samserve.adapters.grpc.server import GrpcServer
from samserve.domain.errors import RETRY_AFTER_SECONDS
from samserve.gateway.backends import BACKENDS
from samserve.gateway.build import ServicerBuilder
from samserve.gateway.settings import Settings
from samserve.gateway.swap import ModelSwapper
from samserve.observability.metrics import Metrics
from samserve.observability.metrics.scrapes import metrics_endpoint
from samserve.usecases.load.admission import Admission
from samserve.usecases.load.thread_pools import compute_threads

_log = logging.getLogger(__name__)


class TracingMissing(ImportError):
    """The packages of the extra `tracing` are not installed."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves.

    Attributes:
        address: `host:port` of gRPC.
        health_port: of the health service alone, or None.
        metrics_port: of Prometheus' endpoint, or None.
        metrics: what it has counted.
    """

    address: str
    health_port: int | None
    metrics_port: int | None
    metrics: Metrics


@asynccontextmanager
async def gateway(settings: Settings, tracer_provider: TracerProvider | None = None) -> AsyncIterator[Gateway]:
    """Run a gateway; it serves inside the context and stops gracefully at its end.

    With the models on Triton it may begin, and be again, not ready: it is whenever Triton is.

    Args:
        tracer_provider: makes the spans, in place of the one that the settings ask for.

    Raises:
        TracingMissing: traces are asked for and OpenTelemetry is not installed.
        InvalidManifest: the model repository is missing or not whole (ONNX Runtime).
        RuntimeError: the port is taken.
        OSError: the health port or the metrics port is.
    """
    async with AsyncExitStack() as stack:
        # Requests run in parallel; for a small matrix product, waiting for a second thread takes longer than it saves.
        stack.enter_context(threadpool_limits(1, "blas"))
        # Threads of `asyncio.to_thread`: hashing, masks, camera motion.
        asyncio.get_running_loop().set_default_executor(compute_threads(settings.cores, "compute"))
        metrics = Metrics()
        tracer = (tracer_provider or _tracer_provider(settings, stack)).get_tracer("samserve")
        # The models must outlive what uses them.
        model_resources = await stack.enter_async_context(AsyncExitStack())
        resources = await stack.enter_async_context(AsyncExitStack())
        requests = Admission("requests", settings.max_requests, RETRY_AFTER_SECONDS)
        streams = Admission("streams", settings.max_streams, RETRY_AFTER_SECONDS)
        for admission in (requests, streams):
            metrics.load.watch(admission)
        metrics.models.build(version("samserve"), settings.backend)
        server = GrpcServer(
            address=f"{settings.host}:{settings.port}",
            health_port=settings.health_port,
            max_message_bytes=settings.max_message_bytes,
            # Capacity for health checks, health watchers and reflection in addition to the requests.
            max_concurrent_rpcs=2 * (settings.max_requests + settings.max_streams),
            observer=metrics.requests,
            tracer=tracer,
            requests=requests,
            streams=streams,
            idle_seconds=settings.stream_idle_seconds,
            reuse_port=settings.processes > 1,
        )
        builder = ServicerBuilder(settings, metrics, requests, resources)
        metrics_port = _serve_metrics(settings, metrics, stack)
        await server.start()
        stack.push_async_callback(server.stop, settings.stop_grace_seconds)
        states = BACKENDS[settings.backend](settings, metrics.caches, model_resources)
        await resources.enter_async_context(ModelSwapper(server, builder, metrics).following(states))
        yield Gateway(server.address, server.health_port, metrics_port, metrics)


async def serve(settings: Settings, started: Callable[[], object] = lambda: None) -> None:
    """Run a gateway until SIGTERM or SIGINT, and call `started` once it has started."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with gateway(settings) as running:
        if running.metrics_port is not None:
            _log.info("metrics on port %d", running.metrics_port)
        started()
        await stop.wait()
        _log.info("stopping")


def _tracer_provider(settings: Settings, stack: AsyncExitStack) -> TracerProvider:
    if not settings.tracing:
        return NoOpTracerProvider()
    try:
        from samserve.observability.otlp import otlp_provider
    except ImportError as error:
        raise TracingMissing(
            f"SAMSERVE_TRACING is set, but {error.name} is missing: "
            "pip install -e '.[tracing]' in samserve's repository"
        ) from error
    provider = otlp_provider()
    # Sends what is still here.
    stack.callback(provider.shutdown)
    return provider


def _serve_metrics(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> int | None:
    if settings.metrics_port is None:
        return None
    try:
        return stack.enter_context(metrics_endpoint(metrics.registry, settings.host, settings.metrics_port))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"metrics port {settings.metrics_port}") from error
