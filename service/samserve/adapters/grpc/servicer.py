"""`samserve.v1.SegmentationService`: reads requests, runs the use cases, writes responses."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

import grpc
import numpy as np

from samserve.adapters.grpc.handlers.automatic import AutomaticHandler
from samserve.adapters.grpc.handlers.gaze import GazeHandler
from samserve.adapters.grpc.handlers.interactive import InteractiveHandler
from samserve.adapters.grpc.handlers.text import TextHandler, has_text
from samserve.adapters.grpc.handlers.tracking import TrackingHandler
from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.adapters.grpc.messages import (
    is_cached,
    read_image,
    read_prompt,
    read_space,
    size_message,
    source_message,
    timings_message,
)
from samserve.domain.errors import InvalidPrompt, within
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import ObjectPrompt, PromptLimits, check_count
from samserve.observability.call import current_call
from samserve.usecases.embedder import EmbeddingResult
from samserve.usecases.segmenter import Segmenter, SegmentQuery
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceServicer

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits of one call."""

    max_image_bytes: int
    max_image_pixels: int
    max_message_bytes: int
    prompts: PromptLimits


class SegmentationServicer(SegmentationServiceServicer):
    """Serves the calls. Domain errors are raised to the interceptor."""

    def __init__(
        self,
        *,
        segmenter: Segmenter,
        manifest: ModelManifest,
        backend: str,
        transport: str,
        limits: ServiceLimits,
        automatic: AutomaticHandler,
        interactive: InteractiveHandler,
        gaze: GazeHandler,
        tracking: TrackingHandler,
        text: TextHandler,
    ) -> None:
        self._segmenter = segmenter
        self._manifest = manifest
        self._backend = backend
        self._transport = transport
        self._limits = limits
        self._automatic = automatic
        self._interactive = interactive
        self._gaze = gaze
        self._tracking = tracking
        self._text = text

    async def EmbedImage(self, request: pb.EmbedImageRequest, context: Context) -> pb.EmbedImageResponse:
        started = time.perf_counter()
        embedded = await self._embed(request.image, context)
        frame = embedded.embedding.frame
        return pb.EmbedImageResponse(
            image_id=embedded.image_id,
            original_size=size_message(frame.original_size),
            input_size=size_message(frame.input_size),
            embedding_source=source_message(embedded),
            cached=is_cached(embedded),
            timings=timings_message(embedded.timings, time.perf_counter() - started),
            notes=embedded.notes,
        )

    async def GetEmbedding(self, request: pb.GetEmbeddingRequest, context: Context) -> pb.GetEmbeddingResponse:
        started = time.perf_counter()
        embedded = await self._embed(request.image, context)
        frame = embedded.embedding.frame
        return pb.GetEmbeddingResponse(
            image_id=embedded.image_id,
            original_size=size_message(frame.original_size),
            input_size=size_message(frame.input_size),
            embedding=np.ascontiguousarray(embedded.embedding.values, dtype="<f2").tobytes(),
            shape=embedded.embedding.values.shape,
            fingerprint=self._manifest.fingerprint,
            embedding_source=source_message(embedded),
            cached=is_cached(embedded),
            timings=timings_message(embedded.timings, time.perf_counter() - started),
            notes=embedded.notes,
        )

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        self._check_size(request)
        if has_text(request):
            return await self._text.segment(request, current_call().tenant)
        started = time.perf_counter()
        mask_format = read_mask_format(request.mask_format)
        query = SegmentQuery(
            image=read_image(request.image, self._limits.max_image_bytes),
            prompts=self._prompts(request),
            multimask_output=request.multimask_output,
            coordinate_space=read_space(request.coordinate_space),
            mask_format=mask_format,
            include_low_res_masks=request.include_low_res_masks,
            tenant=current_call().tenant,
            remaining_seconds=context.time_remaining(),
        )
        segmentation = await self._segmenter.segment(query)
        embedded = segmentation.embedded
        current_call().prompted(len(request.prompts))
        current_call().answered(segmentation.timings)
        return pb.SegmentResponse(
            image_id=embedded.image_id,
            original_size=size_message(embedded.embedding.frame.original_size),
            results=[
                pb.PromptResult(
                    masks=map(mask_message, masks),
                    detection=prompt.detection if prompt.HasField("detection") else None,
                )
                for masks, prompt in zip(segmentation.results, request.prompts, strict=True)
            ],
            embedding_source=source_message(embedded),
            cached=is_cached(embedded),
            timings=timings_message(segmentation.timings, time.perf_counter() - started),
            notes=embedded.notes,
        )

    def SegmentStream(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Context
    ) -> AsyncGenerator[pb.SegmentStreamResponse, None]:
        return self._interactive.serve(requests, current_call().tenant)

    def SegmentGaze(
        self, requests: AsyncIterator[pb.SegmentGazeRequest], context: Context
    ) -> AsyncGenerator[pb.SegmentGazeResponse, None]:
        return self._gaze.serve(requests, current_call().tenant)

    def TrackObjects(
        self, requests: AsyncIterator[pb.TrackObjectsRequest], context: Context
    ) -> AsyncGenerator[pb.TrackObjectsResponse, None]:
        return self._tracking.serve(requests, current_call().tenant)

    def GenerateMasks(
        self, request: pb.GenerateMasksRequest, context: Context
    ) -> AsyncGenerator[pb.GenerateMasksResponse, None]:
        return self._automatic.generate_masks(request, current_call().tenant)

    async def DetectEdges(self, request: pb.DetectEdgesRequest, context: Context) -> pb.DetectEdgesResponse:
        return await self._automatic.detect_edges(request, current_call().tenant)

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        manifest, limits = self._manifest, self._limits
        return pb.GetServerInfoResponse(
            version=version("samserve"),
            model=manifest.model,
            fingerprint=manifest.fingerprint,
            precision=manifest.precision,
            backend=self._backend,
            transport=self._transport,
            image_size=manifest.image_size,
            embedding_shape=manifest.embedding_shape,
            low_res_size=manifest.low_res_size,
            text_prompts=self._text.available,
            limits=pb.Limits(
                max_image_bytes=limits.max_image_bytes,
                max_image_pixels=limits.max_image_pixels,
                max_prompts=limits.prompts.max_prompts,
                max_points_per_prompt=limits.prompts.max_points_per_prompt,
            ),
        )

    async def _embed(self, image: pb.Image, context: Context) -> EmbeddingResult:
        source = read_image(image, self._limits.max_image_bytes)
        return await self._segmenter.embed(source, current_call().tenant, context.time_remaining())

    def _prompts(self, request: pb.SegmentRequest) -> list[ObjectPrompt]:
        prompts = []
        for index, prompt in enumerate(request.prompts):
            with within(f"prompts[{index}]"):
                prompts.append(read_prompt(prompt, self._limits.prompts))
        return prompts

    def _check_size(self, request: pb.SegmentRequest) -> None:
        # Checked before converting a message to arrays, so that rejecting a huge one is cheap.
        check_count(len(request.prompts), self._limits.prompts)
        logits = request.include_low_res_masks + (request.mask_format == pb.MASK_FORMAT_LOW_RES_LOGITS)
        masks = len(request.prompts) * (3 if request.multimask_output else 1)
        if logits * masks * 2 * self._manifest.low_res_size**2 > self._limits.max_message_bytes:
            raise InvalidPrompt(
                "prompts", f"the logits of {masks} masks do not fit into one response; split the request"
            )
