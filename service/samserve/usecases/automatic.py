"""Automatic mask generation as a stream, as in SAM's automatic mask generator.

A grid of points over the image, and over crops of it, gives three masks each, which are filtered and deduplicated. Only
the order of work differs from Meta's published generator. Crops are searched from the smallest to the whole image, so
that the masks of a crop are final once it has been searched. Waiting candidates are compressed, so that neither a large
photo nor a slow reader increases the memory of a request.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.candidates import Acceptance, Candidate, CropSearch
from samserve.domain.embedding import Embedding
from samserve.domain.errors import InvalidParameter
from samserve.domain.geometry import CropBox
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK
from samserve.domain.point_grids import Crop, crop_layers
from samserve.domain.prompts import click_prompts
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.usecases.embedder import EmbeddingResult, ImageEmbedder, ImageInput
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import MaskDecoder, MaskRenderer
from samserve.usecases.timings import Stage, StageTimings

P = ParamSpec("P")
T = TypeVar("T")


_MAX_HELD_BYTES = 256 << 20
"""Limit of a crop's compressed candidates. A photo of 12 million pixels has about 10 MiB at SAM's thresholds."""


@dataclass(frozen=True, slots=True, eq=False)
class GenerationQuery:
    """The image to search, and the parameters."""

    image: ImageInput
    parameters: AutomaticMaskParameters
    tenant: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class GenerationStarted:
    """First event: the image is encoded. Contains the number of points."""

    embedded: EmbeddingResult
    points_total: int


@dataclass(frozen=True, slots=True)
class GenerationProgress:
    """The number of points that have been processed."""

    points_done: int
    points_total: int


@dataclass(frozen=True, slots=True, eq=False)
class AcceptedMask:
    """A mask that was accepted.

    Attributes:
        point: (x, y) of the click that gave it, in pixels of the image.
        crop_box: the part of the image that was searched.
    """

    mask: RenderedMask
    point: tuple[float, float]
    crop_box: CropBox


@dataclass(frozen=True, slots=True, eq=False)
class GenerationFinished:
    """Last event: the number of masks, and the timings including crops."""

    embedded: EmbeddingResult
    masks: int
    timings: StageTimings


SearchEvent: TypeAlias = GenerationStarted | GenerationProgress | Candidate | GenerationFinished
GenerationEvent: TypeAlias = GenerationStarted | GenerationProgress | AcceptedMask | GenerationFinished


class AutomaticMaskGenerator:
    """Generates masks for everything in an image.

    Args:
        requests: admission of requests of every kind.
        generations: admission of this kind, each of which costs as much as a thousand prompts.
    """

    def __init__(
        self,
        *,
        manifest: ModelManifest,
        embedder: ImageEmbedder,
        mask_decoder: MaskDecoder,
        mask_renderer: MaskRenderer,
        requests: Admission,
        generations: Admission,
    ) -> None:
        self._manifest = manifest
        self._embedder = embedder
        self._mask_decoder = mask_decoder
        self._mask_renderer = mask_renderer
        self._requests = requests
        self._generations = generations

    async def generate(
        self, query: GenerationQuery, mask_format: MaskFormat = MaskFormat.COCO_RLE
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Search an image and render its masks one at a time. Raises the errors of `search`.

        Args:
            mask_format: any but `LOW_RES_LOGITS`, which are not kept.
        """
        rendering = _Spent(StageTimings())
        async with aclosing(self.search(query)) as events:
            async for event in events:
                match event:
                    case Candidate():
                        mask = await rendering.postprocessing(self._render, event, mask_format)
                        yield AcceptedMask(mask, event.point, event.crop_box)
                    case GenerationFinished():
                        yield replace(event, timings=event.timings + rendering.timings)
                    case _:
                        yield event

    async def search(self, query: GenerationQuery) -> AsyncGenerator[SearchEvent, None]:
        """Search an image. Nothing is computed until the caller requests the next event.

        Raises:
            InvalidParameter: a parameter is out of range, or lets too many masks through.
            CapacityExceeded: too many requests are in flight.
            Also what `ImageEmbedder.embed` and `MaskDecoder.decode` raise. `EmbeddingNotFound` may come in the midst,
            where only an id was given and a crop is not cached.
        """
        parameters = query.parameters
        parameters.check()
        with self._requests.admit(), self._generations.admit():
            embedded = await self._embedder.embed(query.image, query.tenant)
            original_size = embedded.embedding.frame.original_size
            crops = crop_layers(original_size, parameters.crop_n_layers, parameters.crop_overlap_ratio)
            total = sum(parameters.layer_points_per_side(crop.layer) ** 2 for crop in crops)
            yield GenerationStarted(embedded, total)
            acceptance = Acceptance(parameters, len(crops) > 1)
            spent, done, masks = _Spent(embedded.timings), 0, 0
            for crop in crops:
                embedding = await self._embedding_of(crop, embedded, query, spent)
                search = CropSearch(parameters, crop, embedding.frame, original_size)
                for points in search.batches():
                    await self._ask(points, search, embedding, spent)
                    done += len(points)
                    yield GenerationProgress(done, total)
                chosen = await spent.postprocessing(acceptance.of_crop, search.candidates)
                for candidate in chosen:
                    if await spent.postprocessing(acceptance.accepts, candidate):
                        masks += 1
                        yield candidate
            for candidate in acceptance.changed():
                masks += 1
                yield candidate
            yield GenerationFinished(embedded, masks, spent.timings)

    def _render(self, candidate: Candidate, mask_format: MaskFormat) -> RenderedMask:
        return self._mask_renderer.render(candidate.packed.unpack(), mask_format)

    async def _embedding_of(
        self, crop: Crop, embedded: EmbeddingResult, query: GenerationQuery, spent: "_Spent"
    ) -> Embedding:
        if crop.layer == 0:
            return embedded.embedding
        image = replace(query.image, image_id=embedded.image_id)
        of_crop = await self._embedder.embed(image, query.tenant, crop_box=crop.box)
        spent.timings += of_crop.timings
        return of_crop.embedding

    async def _ask(
        self, points: npt.NDArray[np.float64], search: CropSearch, embedding: Embedding, spent: "_Spent"
    ) -> None:
        prompts = click_prompts(points, embedding.frame, self._manifest.low_res_size)
        decoded = await self._mask_decoder.decode(embedding, prompts)
        spent.timings += decoded.timings
        masks, ious = decoded.low_res_masks[:, MULTIMASK], decoded.iou_predictions[:, MULTIMASK]
        # One point at a time, so that work stops soon after the caller disconnects.
        for point in range(len(points)):
            row = slice(point, point + 1)
            await spent.postprocessing(search.add, points[row], masks[row], ious[row])
        if search.held_bytes > _MAX_HELD_BYTES:
            raise InvalidParameter("pred_iou_thresh", "too low: more masks pass than the server can hold; raise it")


class _Spent:
    """Adds up the timings of one request."""

    def __init__(self, timings: StageTimings) -> None:
        self.timings = timings

    async def postprocessing(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work in a thread, and add its time to post-processing."""
        started = time.perf_counter()
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        finally:
            self.timings += StageTimings({Stage.POST_PROCESS: time.perf_counter() - started})
