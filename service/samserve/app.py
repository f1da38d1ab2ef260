"""The composition root: settings in, a running gateway out."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np
from prometheus_client import start_http_server
from threadpoolctl import threadpool_limits

from samserve.adapters.camera_motion import OpenCvMaskWarper, OpenCvMotionEstimator
from samserve.adapters.embedded import EmbeddedImageEncoder, EmbeddedMaskDecoder
from samserve.adapters.grpc_gaze import GazeFace
from samserve.adapters.grpc_interactive import InteractiveFace
from samserve.adapters.grpc_server import GrpcServer
from samserve.adapters.grpc_servicer import SegmentationServicer, ServiceLimits
from samserve.adapters.grpc_tracking import TrackingFace
from samserve.adapters.image_decoder import PillowImageDecoder
from samserve.adapters.local_lease import LocalEncodeLease
from samserve.adapters.memory_cache import MemoryEmbeddingCache
from samserve.adapters.metrics import Metrics
from samserve.adapters.redis import Breaker, GuardedRedis, RedisEmbeddingCache, RedisEncodeLease, connect
from samserve.adapters.tiered_cache import TieredEmbeddingCache
from samserve.admission import Admission
from samserve.domain.embedding import Embedding
from samserve.domain.gaze.stream import GazeOptions
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import Mask
from samserve.domain.prompts import CoordinateSpace, Prompt, PromptLimits, batch_prompts
from samserve.embedder import ImageEmbedder
from samserve.gaze import GazeSession
from samserve.gaze_frames import GazeFrames
from samserve.gaze_objects import GazeObjects
from samserve.interactive import InteractiveSession
from samserve.ports import DecodedImage, EmbeddingCache, EncodeLease, ImageEncoder, MaskDecoder
from samserve.segmenter import Segmenter
from samserve.settings import Settings
from samserve.tracking import TrackingSession
from samserve.v1 import segmentation_pb2 as pb

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
        segmenter = Segmenter(
            manifest=manifest,
            embedder=embedder,
            mask_decoder=decoder,
            requests=Admission("requests", settings.max_requests, _RETRY_AFTER_SECONDS),
            limits=prompt_limits,
        )
        limits = ServiceLimits(
            settings.max_image_bytes, settings.max_image_pixels, settings.max_message_bytes, prompt_limits
        )

        streams = _streams(settings, manifest, embedder, decoder, image_decoder, prompt_limits, metrics)
        server = GrpcServer(
            SegmentationServicer(
                segmenter=segmenter,
                manifest=manifest,
                engine=settings.engine,
                limits=limits,
                observer=metrics,
                **streams,
            ),
            address=f"{settings.host}:{settings.port}",
            max_message_bytes=settings.max_message_bytes,
            # Health checks, watchers and reflection need room beside the requests.
            max_concurrent_rpcs=2 * (settings.max_requests + settings.max_streams),
            observer=metrics,
            streams=Admission("streams", settings.max_streams, _RETRY_AFTER_SECONDS),
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


class _Streams(TypedDict):
    interactive: InteractiveFace
    gaze: GazeFace
    tracking: TrackingFace


def _streams(
    settings: Settings,
    manifest: ModelManifest,
    embedder: ImageEmbedder,
    decoder: MaskDecoder,
    image_decoder: PillowImageDecoder,
    prompt_limits: PromptLimits,
    metrics: Metrics,
) -> _Streams:
    def interactive(tenant: str, render: Callable[[Mask], pb.Mask]) -> InteractiveSession[pb.Mask]:
        return InteractiveSession(
            tenant=tenant,
            manifest=manifest,
            embedder=embedder,
            mask_decoder=decoder,
            limits=prompt_limits,
            render=render,
        )

    def gaze(options: GazeOptions, tenant: str, render: Callable[[Mask], pb.Mask]) -> GazeSession[pb.Mask]:
        frames = partial(
            GazeFrames,
            tenant=tenant,
            embedder=embedder,
            thumbnails=image_decoder,
            motion_estimator=OpenCvMotionEstimator(),
            policy=options.keyframes,
            observer=metrics,
        )
        return GazeSession(
            options,
            make_frames=frames,
            objects=GazeObjects(
                manifest=manifest,
                mask_decoder=decoder,
                warper=OpenCvMaskWarper(),
                render=render,
                max_mask_side=options.max_mask_side,
            ),
            observer=metrics,
        )

    def tracking(tenant: str, render: Callable[[Mask], pb.Mask]) -> TrackingSession[pb.Mask]:
        return TrackingSession(
            tenant=tenant,
            manifest=manifest,
            embedder=embedder,
            mask_decoder=decoder,
            prompt_limits=prompt_limits,
            max_objects=settings.max_tracked_objects,
            render=render,
        )

    idle_seconds, max_frame_bytes = settings.stream_idle_seconds, settings.max_frame_bytes
    return {
        "interactive": InteractiveFace(
            interactive, max_image_bytes=settings.max_image_bytes, idle_seconds=idle_seconds
        ),
        "gaze": GazeFace(
            gaze,
            max_frame_bytes=max_frame_bytes,
            idle_seconds=idle_seconds,
            max_encodes_per_second=settings.gaze_encodes_per_second,
        ),
        "tracking": TrackingFace(
            tracking, max_frame_bytes=max_frame_bytes, idle_seconds=idle_seconds, prompt_limits=prompt_limits
        ),
    }


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
