"""Text prompts: find the masks of an image that match a text.

SAM's own text encoder was never released. As in FastSAM (Zhao et al. 2023), CLIP compares the masks of automatic mask
generation with the text, and the most similar masks are returned.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.candidates import Candidate
from samserve.domain.errors import PixelsNotFound
from samserve.domain.masks import PackedMask
from samserve.domain.object_crops import crop_object
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.domain.texts import CROPS_PER_RUN, MAX_CANDIDATES, check_texts, most_similar
from samserve.usecases.automatic import (
    AutomaticMaskGenerator,
    GenerationFinished,
    GenerationQuery,
    GenerationStarted,
)
from samserve.usecases.embedder import EmbeddingResult, ImageInput
from samserve.usecases.ports import DecodedImage, ImageDecoder, MaskRenderer, TextRanker, TextTokenizer
from samserve.usecases.timings import Stage, StageTimings

_PHOTO_SIDE = 2048
"""Longest side of the photo that is kept for cutting crops: 12 MiB for photos of any size. SAM sees half this side."""


@dataclass(frozen=True, slots=True, eq=False)
class TextQuery:
    """The texts to search for in an image.

    Attributes:
        masks_per_text: how many masks answer each text, at most.
        mask_format: any but `LOW_RES_LOGITS`, which are not kept.
    """

    image: ImageInput
    texts: Sequence[str]
    masks_per_text: int
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    tenant: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class RankedMask:
    """A mask, and its cosine similarity with the text."""

    mask: RenderedMask
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class TextSegmentation:
    """Masks `results[text][mask]`, the most similar first, and the timings."""

    embedded: EmbeddingResult
    results: list[list[RankedMask]]
    timings: StageTimings


class TextSegmenter:
    """Finds the masks that match texts.

    Args:
        parameters: of the generator.
    """

    def __init__(
        self,
        *,
        generator: AutomaticMaskGenerator,
        mask_renderer: MaskRenderer,
        parameters: AutomaticMaskParameters,
        image_decoder: ImageDecoder,
        tokenizer: TextTokenizer,
        ranker: TextRanker,
    ) -> None:
        self._generator = generator
        self._mask_renderer = mask_renderer
        self._parameters = parameters
        self._image_decoder = image_decoder
        self._tokenizer = tokenizer
        self._ranker = ranker

    async def segment(self, query: TextQuery) -> TextSegmentation:
        """Return the masks of an image that are most similar to each text. The result of a text does not depend on
        other texts.

        Raises:
            InvalidPrompt: a text is empty or too long, or there are too many.
            PixelsNotFound: only an id was given.
            Also what `AutomaticMaskGenerator.search` and `TextRanker` raise.
        """
        check_texts(query.texts)
        tokens = self._tokenizer.tokenize(query.texts)
        if query.image.data is None:
            raise PixelsNotFound(query.image.image_id or "")
        generation = GenerationQuery(query.image, self._parameters, query.tenant)
        async with aclosing(self._generator.search(generation)) as events:
            async for event in events:
                match event:
                    # Not earlier, because the generator's admission limits the number of these photos.
                    case GenerationStarted():
                        comparison = await self._begin(query.image.data, tokens)
                    case Candidate():
                        await comparison.add(event.packed)
                    case GenerationFinished():
                        await comparison.compare()
                        started = time.perf_counter()
                        results = await asyncio.to_thread(self._results, comparison, query)
                        rendering = StageTimings({Stage.POST_PROCESS: time.perf_counter() - started})
                        timings = event.timings + comparison.timings + rendering
                        return TextSegmentation(event.embedded, results, timings)
        raise AssertionError("unreachable: a generation ends with an event that says so")

    def _results(self, comparison: "_Comparison", query: TextQuery) -> list[list[RankedMask]]:
        return [
            [
                RankedMask(self._mask_renderer.render(candidate.unpack(), query.mask_format), similarity)
                for candidate, similarity in best
            ]
            for best in comparison.best(query.masks_per_text)
        ]

    async def _begin(self, data: bytes, tokens: npt.NDArray[np.int32]) -> "_Comparison":
        started = time.perf_counter()
        photo = await self._image_decoder.decode(data, _PHOTO_SIDE)
        texts = await self._ranker.embed_texts(tokens)
        timings = StageTimings({Stage.RANK: time.perf_counter() - started})
        return _Comparison(photo, texts, self._ranker, timings)


@dataclass(slots=True, eq=False)
class _Comparison:
    """Compares candidates with texts `[T, D]` in batches, as they arrive."""

    photo: DecodedImage
    texts: npt.NDArray[np.float32]
    ranker: TextRanker
    timings: StageTimings
    candidates: list[PackedMask] = field(default_factory=list)
    similarities: list[npt.NDArray[np.float32]] = field(default_factory=list)

    async def add(self, candidate: PackedMask) -> None:
        """Add a candidate unless the limit is reached. Candidates arrive in the order of decreasing predicted IoU."""
        if len(self.candidates) < MAX_CANDIDATES:
            self.candidates.append(candidate)
            if len(self.candidates) - len(self.similarities) >= CROPS_PER_RUN:
                await self.compare()

    async def compare(self) -> None:
        """Compare the waiting candidates."""
        waiting = self.candidates[len(self.similarities) :]
        if waiting:
            started = time.perf_counter()
            crops = await asyncio.to_thread(self._crops, waiting)
            self.similarities += list(await self.ranker.embed_crops(crops) @ self.texts.T)
            self.timings += StageTimings({Stage.RANK: time.perf_counter() - started})

    def best(self, masks_per_text: int) -> list[list[tuple[PackedMask, float]]]:
        """The most similar candidates of each text, and their similarities."""
        scores = np.array(self.similarities, dtype=np.float32).reshape(-1, len(self.texts))
        return [
            [(self.candidates[index], float(of_text[index])) for index in most_similar(of_text, masks_per_text)]
            for of_text in scores.T
        ]

    def _crops(self, candidates: Sequence[PackedMask]) -> npt.NDArray[np.uint8]:
        side = self.ranker.image_size
        return np.stack(
            [crop_object(self.photo.pixels, self.photo.frame, candidate.unpack(), side) for candidate in candidates]
        )
