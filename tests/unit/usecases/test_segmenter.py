"""Prompts on one image: what is decoded, what is refused before a model runs, and what comes back."""

import asyncio

import numpy as np
import pytest

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain.errors import CapacityExceeded, InvalidPrompt
from samserve.domain.prompts import PROMPTS_PER_DECODE, CoordinateSpace, ObjectPrompt, PromptLimits
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import EmbeddingSource
from samserve.usecases.segmenter import Segmenter, SegmentQuery
from samserve.usecases.timings import Stage
from tests.support.fake_models import MANIFEST, FakeImageEncoder, FakeMaskDecoder, SceneDecoder, embedder, image
from tests.support.rendered import pixels
from tests.support.waiting import eventually

MANY = 2 * PROMPTS_PER_DECODE + 1


class Bench:
    """A segmenter and its models."""

    def __init__(self) -> None:
        self.encoder, self.decoder = FakeImageEncoder(), FakeMaskDecoder()
        self.requests = Admission("requests", 1, 2.0)
        self.segmenter = Segmenter(
            manifest=MANIFEST,
            embedder=embedder(self.encoder, SceneDecoder()),
            mask_decoder=self.decoder,
            mask_renderer=PillowMaskRenderer(),
            requests=self.requests,
            limits=PromptLimits(max_prompts=MANY),
        )


def click(x: float, y: float) -> ObjectPrompt:
    return ObjectPrompt(np.array([[x, y]]), np.ones(1, np.int32))


async def test_each_prompt_gets_the_mask_of_its_own_point_over_several_decodes() -> None:
    bench = Bench()
    points = [(20.0 + 360 * index / MANY, 150.0) for index in range(MANY)]
    segmentation = await bench.segmenter.segment(SegmentQuery(image(1), [click(x, y) for x, y in points]))
    assert [len(prompts) for prompts in bench.decoder.prompts] == [PROMPTS_PER_DECODE, PROMPTS_PER_DECODE, 1]
    assert len(segmentation.results) == MANY
    for (x, y), [mask] in zip(points, segmentation.results, strict=True):
        assert pixels(mask)[int(y), int(x)]


@pytest.mark.parametrize(("multimask_output", "ious"), [(False, [0.8]), (True, [0.7, 0.9, 0.6])])
async def test_one_mask_comes_back_or_three_that_the_point_may_mean(multimask_output: bool, ious: list[float]) -> None:
    query = SegmentQuery(image(1), [click(100, 100)], multimask_output=multimask_output)
    [masks] = (await Bench().segmenter.segment(query)).results
    np.testing.assert_allclose([mask.iou_prediction for mask in masks], ious)


async def test_normalized_points_are_shares_of_the_image() -> None:
    query = SegmentQuery(image(1), [click(0.5, 0.5)], coordinate_space=CoordinateSpace.NORMALIZED)
    [[mask]] = (await Bench().segmenter.segment(query)).results
    assert pixels(mask)[150, 200]


@pytest.mark.parametrize("prompts", [[], [click(401, 1)], [click(float("nan"), 1)], [click(1, 1)] * (MANY + 1)])
async def test_bad_prompts_are_refused_before_a_model_runs(prompts: list[ObjectPrompt]) -> None:
    bench = Bench()
    with pytest.raises(InvalidPrompt):
        await bench.segmenter.segment(SegmentQuery(image(1), prompts))
    assert (bench.encoder.encoded, bench.decoder.begun, bench.requests.in_flight) == (0, 0, 0)


async def test_embedding_ahead_takes_a_place_and_spares_the_prompt_the_encoder() -> None:
    bench = Bench()
    bench.encoder.let.clear()
    embedding = asyncio.ensure_future(bench.segmenter.embed(image(1), ""))
    await eventually(lambda: bench.encoder.in_flight == 1)
    with pytest.raises(CapacityExceeded) as refused:
        await bench.segmenter.segment(SegmentQuery(image(2), [click(1, 1)]))
    assert refused.value.retry_after_seconds == 2.0
    bench.encoder.let.set()
    assert (await embedding).source is EmbeddingSource.ENCODED
    segmentation = await bench.segmenter.segment(SegmentQuery(image(1), [click(1, 1)]))
    assert segmentation.embedded.source is EmbeddingSource.MEMORY
    assert segmentation.timings[Stage.ENCODE] == 0
    assert bench.encoder.encoded == 1
