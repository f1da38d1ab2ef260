"""Text prompts on the real generator and a predictable ranker."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.errors import CapacityExceeded, InvalidPrompt, PixelsNotFound
from samserve.domain.geometry import CropBox
from samserve.domain.identity import ImageId
from samserve.domain.texts import CROPS_PER_RUN
from samserve.usecases.embedder import ImageInput
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import DecodedImage
from samserve.usecases.text_prompts import RankedMask, TextQuery, TextSegmentation, TextSegmenter
from tests.support.embedder_bench import DOG, CountingDecoder
from tests.support.generator_bench import GeneratorBench

PARAMETERS = AutomaticMaskParameters(points_per_side=8, stability_score_thresh=0)

PLACES = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0), "anywhere": (0.0, 0.0)}


class PlaceTokenizer:
    """A text is the name of a place; its number is its only token."""

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        return np.array([[list(PLACES).index(text)] for text in texts], dtype=np.int32)


class PlaceDecoder(CountingDecoder):
    """Photos whose colours tell places: red rises to the right, green to the bottom."""

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        image = await super().decode(data, image_size, crop_box)
        levels = (np.arange(image_size) * 256 // image_size).astype(np.uint8)
        pixels = np.stack([*np.meshgrid(levels, levels), np.zeros((image_size, image_size), np.uint8)])
        return replace(image, pixels=pixels)


class PlaceRanker:
    """Objects are the more similar the farther they are where the text says; a crop is one pixel of mean colour."""

    image_size = 1

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.texts = 0

    async def embed_texts(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        self.texts += len(tokens)
        return np.array([list(PLACES.values())[token] for (token,) in tokens], dtype=np.float32)

    async def embed_crops(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.runs.append(len(crops))
        return crops[:, :2, 0, 0].astype(np.float32)


class TextBench:
    def __init__(self) -> None:
        self.bench = GeneratorBench()
        self.ranker, self.image_decoder = PlaceRanker(), PlaceDecoder()
        self.segmenter = TextSegmenter(
            generator=self.bench.generator,
            mask_renderer=PillowMaskRenderer(),
            parameters=PARAMETERS,
            image_decoder=self.image_decoder,
            tokenizer=PlaceTokenizer(),
            ranker=self.ranker,
        )

    async def segment(self, *texts: str, masks: int = 3) -> TextSegmentation:
        return await self.segmenter.segment(TextQuery(DOG, texts, masks))


async def test_answers_are_the_most_similar_masks_the_best_first() -> None:
    bench = TextBench()
    [left], [right] = (await bench.segment("left")).results, (await bench.segment("right")).results
    assert len(left) == len(right) == 3
    assert max(ranked.mask.bbox[2] for ranked in left) < min(ranked.mask.bbox[0] for ranked in right)
    for found in (left, right):
        similarities = [ranked.similarity for ranked in found]
        assert similarities == sorted(similarities, reverse=True)


async def test_of_equal_masks_the_one_of_the_highest_predicted_iou_comes_first() -> None:
    [found] = (await TextBench().segment("anywhere", masks=64)).results
    assert {ranked.similarity for ranked in found} == {0.0}
    corners = [(ranked.mask.bbox[1], ranked.mask.bbox[0]) for ranked in found]
    # The generator gives masks of one predicted IoU in the order of the points, row by row.
    assert corners == sorted(corners)


async def test_an_answer_does_not_depend_on_the_other_texts() -> None:
    texts = ["left", "bottom", "right", "top"]
    together = (await TextBench().segment(*texts)).results
    shuffled = (await TextBench().segment(*reversed(texts))).results
    alone = [(await TextBench().segment(text)).results[0] for text in texts]

    def plain(results: list[list[RankedMask]]) -> list[list[tuple[tuple[float, ...], float]]]:
        return [[(ranked.mask.bbox, ranked.similarity) for ranked in found] for found in results]

    assert plain(together) == plain(alone) == plain(shuffled[::-1])


async def test_candidates_are_compared_once_for_all_texts_some_at_a_time() -> None:
    bench = TextBench()
    found = await bench.segment("left", "right", masks=100)
    assert sum(bench.ranker.runs) == len(found.results[0]) > CROPS_PER_RUN
    assert max(bench.ranker.runs) == CROPS_PER_RUN
    assert bench.image_decoder.decoded == 1


async def test_id_alone_is_refused_before_anything_runs() -> None:
    bench = TextBench()
    query = TextQuery(ImageInput(image_id=ImageId.of(b"dog")), ["left"], 1)
    with pytest.raises(PixelsNotFound, match="send the image itself"):
        await bench.segmenter.segment(query)
    assert bench.bench.decoder.batches == bench.ranker.texts == 0


async def test_bad_text_is_refused_before_anything_runs() -> None:
    bench = TextBench()
    with pytest.raises(InvalidPrompt):
        await bench.segment("left", "")
    assert bench.bench.decoder.batches == bench.ranker.texts == 0


async def test_a_full_gateway_runs_no_text_model() -> None:
    bench = TextBench()
    with bench.bench.generations.admit():
        with pytest.raises(CapacityExceeded):
            await bench.segment("left")
        assert bench.image_decoder.decoded == bench.ranker.texts == 0


async def test_a_place_is_held_to_the_end_and_freed_when_the_caller_leaves() -> None:
    bench = TextBench()
    begun, generations = asyncio.Event(), bench.bench.generations

    async def held(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench.ranker.embed_crops = held  # type: ignore[method-assign]
    caller = asyncio.create_task(bench.segment("left"))
    await begun.wait()
    assert isinstance(generations, Admission)
    assert generations.in_flight == 1
    caller.cancel()
    await asyncio.wait((caller,))
    assert generations.in_flight == 0
