"""Composes the use cases and their gRPC handlers for one build of the models."""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from samserve.adapters.cache.local_lease import LocalEncodeLease
from samserve.adapters.cache.tiered import TieredEmbeddingCache
from samserve.adapters.grpc.handlers.automatic import AutomaticHandler
from samserve.adapters.grpc.handlers.gaze import GazeHandler
from samserve.adapters.grpc.handlers.interactive import InteractiveHandler
from samserve.adapters.grpc.handlers.text import TextHandler
from samserve.adapters.grpc.handlers.tracking import TrackingHandler
from samserve.adapters.grpc.servicer import SegmentationServicer, ServiceLimits
from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.adapters.redis import Breaker, GuardedRedis, RedisEmbeddingCache, RedisEncodeLease, connect
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.errors import RETRY_AFTER_SECONDS, TextUnavailable
from samserve.domain.gaze.stream import GazeOptions
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import PromptLimits
from samserve.gateway.backends import Models
from samserve.gateway.settings import Settings
from samserve.observability.instrumented import (
    InstrumentedEmbeddingCache,
    InstrumentedImageDecoder,
    InstrumentedImageEmbedder,
    InstrumentedImageEncoder,
    InstrumentedMaskDecoder,
)
from samserve.observability.metrics import Metrics
from samserve.usecases.automatic import AutomaticMaskGenerator
from samserve.usecases.edges import EdgeDetector
from samserve.usecases.embedder import ImageEmbedder
from samserve.usecases.gaze.frames import GazeFrames
from samserve.usecases.gaze.session import GazeSession
from samserve.usecases.gaze.target import GazeObjects
from samserve.usecases.interactive import EditingSession
from samserve.usecases.load.admission import Admission
from samserve.usecases.load.rate_limit import TenantRateLimiter
from samserve.usecases.ports import EmbeddingCache, EncodeLease
from samserve.usecases.segmenter import Segmenter
from samserve.usecases.text_prompts import TextSegmenter
from samserve.usecases.tracking import TrackingSession


class ServicerBuilder:
    """Composes new use cases for each build of the models, so that builds share no state.

    Args:
        requests: admission of single images and their prompts.
        resources: closes what the servicers share, after the last of them.
    """

    def __init__(self, settings: Settings, metrics: Metrics, requests: Admission, resources: AsyncExitStack) -> None:
        self._settings = settings
        self._metrics = metrics
        self._image_decoder = PillowImageDecoder(settings.max_image_pixels, settings.image_decode_workers)
        resources.callback(self._image_decoder.close)
        self._mask_renderer = PillowMaskRenderer()
        self._redis = _redis(settings, metrics, resources)
        self._encodes = Admission("encodes", settings.max_encodes, RETRY_AFTER_SECONDS)
        self._requests = requests
        self._generations = Admission("generations", settings.max_generations, RETRY_AFTER_SECONDS)
        for admission in (self._encodes, self._generations):
            metrics.load.watch(admission)
        self._encode_rate = TenantRateLimiter(settings.gaze_encodes_per_second)
        self._prompt_limits = PromptLimits(settings.max_prompts, settings.max_points_per_prompt)
        self._embedder: ImageEmbedder | None = None
        resources.push_async_callback(self._close)

    def build(self, models: Models) -> SegmentationServicer:
        """Build a servicer for these models, to replace the previous one."""
        cache, lease = self._caches(models)
        self._embedder = embedder = InstrumentedImageEmbedder(
            manifest=models.manifest,
            image_decoder=InstrumentedImageDecoder(self._image_decoder),
            image_encoder=InstrumentedImageEncoder(models.encoder),
            cache=InstrumentedEmbeddingCache(cache),
            lease=lease,
            encodes=self._encodes,
            cache_secret=self._settings.cache_secret.get_secret_value().encode(),
        )
        models = replace(models, decoder=InstrumentedMaskDecoder(models.decoder))
        self._metrics.load.watch_queue(lambda: self._encodes.waiting + models.queued_encodes())
        return self._servicer(models, embedder)

    def _servicer(self, models: Models, embedder: ImageEmbedder) -> SegmentationServicer:
        settings, limits = self._settings, self._prompt_limits
        segmenter = Segmenter(
            manifest=models.manifest,
            embedder=embedder,
            mask_decoder=models.decoder,
            mask_renderer=self._mask_renderer,
            requests=self._requests,
            limits=limits,
        )
        return SegmentationServicer(
            segmenter=segmenter,
            manifest=models.manifest,
            backend=models.backend,
            transport=models.transport,
            limits=ServiceLimits(
                settings.max_image_bytes, settings.max_image_pixels, settings.max_message_bytes, limits
            ),
            automatic=self._automatic(models, embedder),
            text=self._text(models, embedder),
            interactive=self._interactive(models, embedder),
            gaze=self._gaze(models, embedder),
            tracking=self._tracking(models, embedder),
        )

    def _generator(self, models: Models, embedder: ImageEmbedder) -> AutomaticMaskGenerator:
        return AutomaticMaskGenerator(
            manifest=models.manifest,
            embedder=embedder,
            mask_decoder=models.decoder,
            mask_renderer=self._mask_renderer,
            requests=self._requests,
            generations=self._generations,
        )

    def _text(self, models: Models, embedder: ImageEmbedder) -> TextHandler:
        settings = self._settings
        segmenter: TextSegmenter | TextUnavailable
        if isinstance(models.text, TextUnavailable):
            segmenter = models.text
        else:
            segmenter = TextSegmenter(
                generator=self._generator(models, embedder),
                mask_renderer=self._mask_renderer,
                parameters=self._text_parameters(models),
                image_decoder=InstrumentedImageDecoder(self._image_decoder),
                tokenizer=models.text.tokenizer,
                ranker=models.text.ranker,
            )
        return TextHandler(segmenter, max_image_bytes=settings.max_image_bytes)

    def _text_parameters(self, models: Models) -> AutomaticMaskParameters:
        settings, of_the_model = self._settings, _default_parameters(models.manifest)
        given = settings.text_pred_iou_thresh, settings.text_stability_score_thresh
        return replace(
            of_the_model,
            points_per_side=settings.text_points_per_side,
            pred_iou_thresh=of_the_model.pred_iou_thresh if given[0] is None else given[0],
            stability_score_thresh=of_the_model.stability_score_thresh if given[1] is None else given[1],
        )

    def _automatic(self, models: Models, embedder: ImageEmbedder) -> AutomaticHandler:
        edge_detector = EdgeDetector(
            manifest=models.manifest,
            embedder=embedder,
            mask_decoder=models.decoder,
            requests=self._requests,
            generations=self._generations,
        )
        return AutomaticHandler(
            generator=self._generator(models, embedder),
            edge_detector=edge_detector,
            defaults=_default_parameters(models.manifest),
            max_image_bytes=self._settings.max_image_bytes,
        )

    def _interactive(self, models: Models, embedder: ImageEmbedder) -> InteractiveHandler:
        def session(tenant: str) -> EditingSession:
            return EditingSession(
                tenant=tenant,
                manifest=models.manifest,
                embedder=embedder,
                mask_decoder=models.decoder,
                mask_renderer=self._mask_renderer,
                limits=self._prompt_limits,
            )

        return InteractiveHandler(
            session,
            max_image_bytes=self._settings.max_image_bytes,
            idle_seconds=self._settings.stream_idle_seconds,
        )

    def _gaze(self, models: Models, embedder: ImageEmbedder) -> GazeHandler:
        def session(options: GazeOptions, tenant: str) -> GazeSession:
            frames = partial(
                GazeFrames,
                tenant=tenant,
                encode_rate=self._encode_rate,
                embedder=embedder,
                thumbnails=self._image_decoder,
                policy=options.keyframes,
                observer=self._metrics.gaze,
            )
            objects = GazeObjects(
                manifest=models.manifest,
                mask_decoder=models.decoder,
                mask_renderer=self._mask_renderer,
                mask_format=options.mask_format,
                max_mask_side=options.max_mask_side,
            )
            return GazeSession(options, make_frames=frames, objects=objects, observer=self._metrics.gaze)

        return GazeHandler(
            session,
            max_frame_bytes=self._settings.max_frame_bytes,
            idle_seconds=self._settings.stream_idle_seconds,
            max_encodes_per_second=self._settings.gaze_encodes_per_second,
        )

    def _tracking(self, models: Models, embedder: ImageEmbedder) -> TrackingHandler:
        def session(tenant: str) -> TrackingSession:
            return TrackingSession(
                tenant=tenant,
                manifest=models.manifest,
                embedder=embedder,
                mask_decoder=models.decoder,
                mask_renderer=self._mask_renderer,
                prompt_limits=self._prompt_limits,
                max_objects=self._settings.max_tracked_objects,
            )

        return TrackingHandler(
            session,
            max_frame_bytes=self._settings.max_frame_bytes,
            idle_seconds=self._settings.stream_idle_seconds,
            prompt_limits=self._prompt_limits,
        )

    def _caches(self, models: Models) -> tuple[EmbeddingCache, EncodeLease]:
        if self._redis is None:
            return models.memory, LocalEncodeLease()
        remote = RedisEmbeddingCache(
            self._redis,
            models.manifest,
            self._metrics.caches,
            ttl_seconds=self._settings.redis_ttl_seconds,
            budget_seconds=self._settings.redis_budget_seconds,
        )
        return TieredEmbeddingCache(models.memory, remote), RedisEncodeLease(self._redis, self._metrics.caches)

    async def _close(self) -> None:
        if self._embedder is not None:
            await self._embedder.close()


def _redis(settings: Settings, metrics: Metrics, resources: AsyncExitStack) -> GuardedRedis | None:
    if settings.redis_url is None:
        return None
    client = connect(settings.redis_url, cluster=settings.redis_cluster)
    redis = GuardedRedis(client, Breaker(metrics.caches), metrics.caches)
    resources.push_async_callback(redis.aclose)
    return redis


def _default_parameters(manifest: ModelManifest) -> AutomaticMaskParameters:
    """SAM's parameters of the mask generator, but for those that the model brings."""
    parameters, own = AutomaticMaskParameters(), manifest.mask_generation
    return replace(
        parameters,
        pred_iou_thresh=own.get("pred_iou_thresh", parameters.pred_iou_thresh),
        stability_score_thresh=own.get("stability_score_thresh", parameters.stability_score_thresh),
    )
