"""The main use case: segment an image by prompts."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from samserve.domain.geometry import ImageFrame
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK, SINGLE_MASK, upsample_mask
from samserve.domain.prompts import (
    PROMPTS_PER_DECODE,
    CoordinateSpace,
    ObjectPrompt,
    PromptLimits,
    batch_prompts,
    check_inside,
    check_prompts,
)
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.usecases.embedder import EmbeddingResult, ImageEmbedder, ImageInput
from samserve.usecases.load.admission import Admission
from samserve.usecases.load.deadlines import DeadlineAdmission
from samserve.usecases.ports import DecodedMasks, MaskDecoder, MaskRenderer
from samserve.usecases.timings import Stage, StageTimings


@dataclass(frozen=True, slots=True, eq=False)
class SegmentQuery:
    """A request: the fields of the API's `SegmentRequest`, and the time until the caller's deadline."""

    image: ImageInput
    prompts: Sequence[ObjectPrompt]
    multimask_output: bool = False
    coordinate_space: CoordinateSpace = CoordinateSpace.PIXELS
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    include_low_res_masks: bool = False
    tenant: str = ""
    remaining_seconds: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationResult:
    """Masks, `results[prompt][mask]`, and the timings."""

    embedded: EmbeddingResult
    results: list[list[RenderedMask]]
    timings: StageTimings


class Segmenter:
    """Segments images by prompts.

    Args:
        requests: admission of requests, whether or not their image has to be encoded.
    """

    def __init__(
        self,
        *,
        manifest: ModelManifest,
        embedder: ImageEmbedder,
        mask_decoder: MaskDecoder,
        mask_renderer: MaskRenderer,
        requests: Admission,
        limits: PromptLimits,
    ) -> None:
        self._manifest = manifest
        self._embedder = embedder
        self._mask_decoder = mask_decoder
        self._mask_renderer = mask_renderer
        self._requests = requests
        self._limits = limits
        self._deadlines = DeadlineAdmission()

    async def embed(self, image: ImageInput, tenant: str, remaining_seconds: float | None = None) -> EmbeddingResult:
        """Encode an image in advance. Raises the errors of `ImageEmbedder.embed`."""
        with self._requests.admit(), self._deadlines.keep(remaining_seconds):
            return await self._embedder.embed(image, tenant)

    async def segment(self, query: SegmentQuery) -> SegmentationResult:
        """Segment one image by one or many prompts.

        Raises:
            InvalidPrompt: a prompt is malformed or outside the image.
            CapacityExceeded: too many requests are in flight, or too many to end before the caller's deadline.
            Also what `ImageEmbedder.embed` and `MaskDecoder.decode` raise.
        """
        check_prompts(query.prompts, self._limits, self._manifest.low_res_size)
        with self._requests.admit(), self._deadlines.keep(query.remaining_seconds):
            check = partial(check_inside, query.prompts, query.coordinate_space)
            embedded = await self._embedder.embed(query.image, query.tenant, check)
            frame = embedded.embedding.frame
            results: list[list[RenderedMask]] = []
            timings = embedded.timings
            for start in range(0, len(query.prompts), PROMPTS_PER_DECODE):
                prompts = query.prompts[start : start + PROMPTS_PER_DECODE]
                batch = batch_prompts(prompts, query.coordinate_space, frame, self._manifest.low_res_size)
                decoded = await self._mask_decoder.decode(embedded.embedding, batch)
                started = time.perf_counter()
                results += await asyncio.to_thread(self._render_all, decoded, frame, query)
                timings += decoded.timings + StageTimings({Stage.POST_PROCESS: time.perf_counter() - started})
            return SegmentationResult(embedded, results, timings)

    def _render_all(self, decoded: DecodedMasks, frame: ImageFrame, query: SegmentQuery) -> list[list[RenderedMask]]:
        """Render the masks one by one, so that a request holds at most one at full size."""
        chosen = MULTIMASK if query.multimask_output else SINGLE_MASK
        return [
            [
                self._mask_renderer.render(
                    upsample_mask(low_res_mask, float(iou), frame), query.mask_format, query.include_low_res_masks
                )
                for low_res_mask, iou in zip(masks[chosen], ious[chosen], strict=True)
            ]
            for masks, ious in zip(decoded.low_res_masks, decoded.iou_predictions, strict=True)
        ]
