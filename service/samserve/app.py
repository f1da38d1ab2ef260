"""The composition root: settings in, a running gateway out."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np
from prometheus_client import start_http_server
from threadpoolctl import threadpool_limits

from samserve.adapters.grpc_server import GrpcServer
from samserve.adapters.grpc_servicer import SegmentationServicer, ServiceLimits
from samserve.adapters.image_decoder import PillowImageDecoder
from samserve.adapters.local_lease import LocalEncodeLease
from samserve.adapters.metrics import Metrics
from samserve.adapters.redis import Breaker, GuardedRedis, RedisEmbeddingCache, RedisEncodeLease, connect
from samserve.adapters.tiered_cache import TieredEmbeddingCache
from samserve.admission import Admission
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import CoordinateSpace, Prompt, PromptLimits, batch_prompts
from samserve.embedder import ImageEmbedder
from samserve.engines import ENGINES, Models
from samserve.ports import DecodedImage, EmbeddingCache, EncodeLease, ImageEncoder, MaskDecoder
from samserve.segmenter import Segmenter
from samserve.settings import Settings

_log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves.

    Attributes:
        address: `host:port` of gRPC.
        metrics_port: of Prometheus' endpoint, or None.
        metrics: what it has counted.
    """

    address: str
    metrics_port: int | None
    metrics: Metrics


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Run a gateway; it serves inside the context and stops gracefully at its end.

    With the models on Triton it may begin, and be again, not ready: it is whenever Triton is.

    Raises:
        InvalidManifest: the model repository is missing or not whole (embedded engine).
        RuntimeError: the port is taken.
    """
    async with AsyncExitStack() as stack:
        # Requests run side by side; a small matrix product that waits for a second thread is slower, not faster.
        stack.enter_context(threadpool_limits(1, "blas"))
        metrics = Metrics()
        resources = await stack.enter_async_context(AsyncExitStack())
        start_engine = ENGINES[settings.engine](settings, metrics, resources)
        server = GrpcServer(
            address=f"{settings.host}:{settings.port}",
            max_message_bytes=settings.max_message_bytes,
            # Health checks, watchers and reflection need room beside the requests.
            max_concurrent_rpcs=2 * settings.max_requests,
            observer=metrics,
        )
        core = _Core(settings, metrics, server, resources)
        metrics_port = _serve_metrics(settings, metrics, stack)
        await server.start()
        stack.push_async_callback(server.stop, settings.stop_grace_seconds)
        await start_engine(core)
        yield Gateway(server.address, metrics_port, metrics)


async def serve(settings: Settings) -> None:
    """Run a gateway until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with gateway(settings):
        await stop.wait()
        _log.info("stopping")


class _Core:
    """The use cases, built anew for each build of the models, so that nothing of one is left for the next."""

    def __init__(self, settings: Settings, metrics: Metrics, server: GrpcServer, resources: AsyncExitStack) -> None:
        self._settings = settings
        self._metrics = metrics
        self._server = server
        self._image_decoder = PillowImageDecoder(settings.max_image_pixels, settings.image_decode_workers)
        resources.callback(self._image_decoder.close)
        self._redis = _redis(settings, metrics, resources)
        self._encodes = Admission("encodes", settings.max_encodes, _RETRY_AFTER_SECONDS)
        self._requests = Admission("requests", settings.max_requests, _RETRY_AFTER_SECONDS)
        self._embedder: ImageEmbedder | None = None
        resources.push_async_callback(self._close)

    async def serve(self, models: Models) -> None:
        """Warm these models up and have them answer what comes in from now on. Raises what the models raise."""
        settings = self._settings
        await _warm_up(models.manifest, models.encoder, models.decoder)
        cache, lease = self._caches(models)
        self._embedder = ImageEmbedder(
            manifest=models.manifest,
            image_decoder=self._image_decoder,
            image_encoder=models.encoder,
            cache=cache,
            lease=lease,
            encodes=self._encodes,
            cache_secret=settings.cache_secret.get_secret_value().encode(),
        )
        prompt_limits = PromptLimits(settings.max_prompts, settings.max_points_per_prompt)
        segmenter = Segmenter(
            manifest=models.manifest,
            embedder=self._embedder,
            mask_decoder=models.decoder,
            requests=self._requests,
            limits=prompt_limits,
        )
        servicer = SegmentationServicer(
            segmenter=segmenter,
            manifest=models.manifest,
            engine=settings.engine,
            transport=models.transport,
            limits=ServiceLimits(
                settings.max_image_bytes, settings.max_image_pixels, settings.max_message_bytes, prompt_limits
            ),
            observer=self._metrics,
        )
        self._server.exchange(servicer)
        await self.set_serving(True)
        _log.info("serving %s (%s engine) on %s", models.manifest.model, settings.engine, self._server.address)

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks whether the models are there."""
        await self._server.set_serving(serving)

    def _caches(self, models: Models) -> tuple[EmbeddingCache, EncodeLease]:
        if self._redis is None:
            return models.memory, LocalEncodeLease()
        remote = RedisEmbeddingCache(
            self._redis,
            models.manifest,
            self._metrics,
            ttl_seconds=self._settings.redis_ttl_seconds,
            budget_seconds=self._settings.redis_budget_seconds,
        )
        return TieredEmbeddingCache(models.memory, remote), RedisEncodeLease(self._redis, self._metrics)

    async def _close(self) -> None:
        if self._embedder is not None:
            await self._embedder.close()


def _redis(settings: Settings, metrics: Metrics, resources: AsyncExitStack) -> GuardedRedis | None:
    if settings.redis_url is None:
        return None
    redis = GuardedRedis(connect(settings.redis_url), Breaker(metrics), metrics)
    resources.push_async_callback(redis.aclose)
    return redis


def _serve_metrics(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> int | None:
    if settings.metrics_port is None:
        return None
    server, thread = start_http_server(settings.metrics_port, settings.host, registry=metrics.registry)
    stack.callback(thread.join)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return int(server.server_port)


async def _warm_up(manifest: ModelManifest, encoder: ImageEncoder, decoder: MaskDecoder) -> None:
    """Run both models once, so that the first caller does not pay for what they set up on first use."""
    side = manifest.image_size
    frame = ImageFrame(Size(side, side), side)
    encoded = await encoder.encode(DecodedImage(np.zeros((3, side, side), dtype=np.uint8), frame, 0.0))
    click = Prompt(np.array([[side / 2, side / 2]]), np.ones(1, dtype=np.int32))
    prompts = batch_prompts([click], CoordinateSpace.PIXELS, frame, manifest.low_res_size)
    await decoder.decode(Embedding(encoded.values, frame), prompts)
