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

from samserve.adapters.connected_components import OpenCvComponentLabeler
from samserve.adapters.embedded import EmbeddedImageEncoder, EmbeddedMaskDecoder
from samserve.adapters.grpc_automatic import AutomaticFace
from samserve.adapters.grpc_server import GrpcServer
from samserve.adapters.grpc_servicer import SegmentationServicer, ServiceLimits
from samserve.adapters.image_decoder import PillowImageDecoder
from samserve.adapters.local_lease import LocalEncodeLease
from samserve.adapters.memory_cache import MemoryEmbeddingCache
from samserve.adapters.metrics import Metrics
from samserve.adapters.redis import Breaker, GuardedRedis, RedisEmbeddingCache, RedisEncodeLease, connect
from samserve.adapters.tiered_cache import TieredEmbeddingCache
from samserve.admission import Admission
from samserve.automatic import AutomaticMaskGenerator
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import CoordinateSpace, Prompt, PromptLimits, batch_prompts
from samserve.edges import EdgeDetector
from samserve.embedder import ImageEmbedder
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

    Raises:
        InvalidManifest: the model repository is missing or not whole.
        RuntimeError: the port is taken.
    """
    async with AsyncExitStack() as stack:
        # Requests run side by side; a small matrix product that waits for a second thread is slower, not faster.
        stack.enter_context(threadpool_limits(1, "blas"))
        manifest = ModelManifest.read(settings.model_repository)
        metrics = Metrics()
        encoder = EmbeddedImageEncoder(settings.model_repository, settings.engine_threads)
        stack.callback(encoder.close)
        decoder = EmbeddedMaskDecoder(settings.model_repository, threads=settings.engine_threads)
        stack.callback(decoder.close)
        image_decoder = PillowImageDecoder(settings.max_image_pixels, settings.image_decode_workers)
        stack.callback(image_decoder.close)
        cache, lease = _caches(settings, manifest, metrics, stack)
        embedder = ImageEmbedder(
            manifest=manifest,
            image_decoder=image_decoder,
            image_encoder=encoder,
            cache=cache,
            lease=lease,
            encodes=Admission("encodes", settings.max_encodes, _RETRY_AFTER_SECONDS),
            cache_secret=settings.cache_secret.get_secret_value().encode(),
        )
        stack.push_async_callback(embedder.close)
        prompt_limits = PromptLimits(settings.max_prompts, settings.max_points_per_prompt)
        requests = Admission("requests", settings.max_requests, _RETRY_AFTER_SECONDS)
        segmenter = Segmenter(
            manifest=manifest, embedder=embedder, mask_decoder=decoder, requests=requests, limits=prompt_limits
        )
        limits = ServiceLimits(
            settings.max_image_bytes, settings.max_image_pixels, settings.max_message_bytes, prompt_limits
        )
        server = GrpcServer(
            SegmentationServicer(
                segmenter=segmenter,
                manifest=manifest,
                engine=settings.engine,
                limits=limits,
                observer=metrics,
                automatic=_automatic(settings, manifest, embedder, decoder, requests, metrics),
            ),
            address=f"{settings.host}:{settings.port}",
            max_message_bytes=settings.max_message_bytes,
            # Health checks, watchers and reflection need room beside the requests.
            max_concurrent_rpcs=2 * settings.max_requests,
            observer=metrics,
            idle_seconds=settings.stream_idle_seconds,
        )
        metrics_port = _serve_metrics(settings, metrics, stack)
        await server.start()
        stack.push_async_callback(server.stop, settings.stop_grace_seconds)
        await _warm_up(manifest, encoder, decoder)
        await server.set_serving(True)
        _log.info("serving %s (%s engine) on %s", manifest.model, settings.engine, server.address)
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


def _automatic(
    settings: Settings,
    manifest: ModelManifest,
    embedder: ImageEmbedder,
    mask_decoder: MaskDecoder,
    requests: Admission,
    metrics: Metrics,
) -> AutomaticFace:
    generations = Admission("mask generations", settings.max_generations, _RETRY_AFTER_SECONDS)
    generator = AutomaticMaskGenerator(
        manifest=manifest,
        embedder=embedder,
        mask_decoder=mask_decoder,
        labeler=OpenCvComponentLabeler(),
        requests=requests,
        generations=generations,
    )
    edge_detector = EdgeDetector(
        manifest=manifest, embedder=embedder, mask_decoder=mask_decoder, requests=requests, generations=generations
    )
    return AutomaticFace(
        generator=generator, edge_detector=edge_detector, max_image_bytes=settings.max_image_bytes, observer=metrics
    )


def _caches(
    settings: Settings, manifest: ModelManifest, metrics: Metrics, stack: AsyncExitStack
) -> tuple[EmbeddingCache, EncodeLease]:
    memory = MemoryEmbeddingCache(settings.memory_cache_bytes, metrics)
    if settings.redis_url is None:
        return memory, LocalEncodeLease()
    redis = GuardedRedis(connect(settings.redis_url), Breaker(metrics), metrics)
    stack.push_async_callback(redis.aclose)
    remote = RedisEmbeddingCache(
        redis,
        manifest,
        metrics,
        ttl_seconds=settings.redis_ttl_seconds,
        budget_seconds=settings.redis_budget_seconds,
    )
    return TieredEmbeddingCache(memory, remote), RedisEncodeLease(redis, metrics)


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
