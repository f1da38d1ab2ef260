"""The generator's order of work, on ports made for the test: nothing runs ahead of the caller or after it has gone."""

from contextlib import aclosing

import numpy as np
import pytest

import samserve.usecases.automatic
from samserve.adapters.opencv.connected_components import OpenCvComponentLabeler
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.embedding import Embedding
from samserve.domain.errors import InvalidParameter, Overloaded
from samserve.domain.prompts import PromptBatch
from samserve.usecases.automatic import (
    AutomaticMaskGenerator,
    GeneratedMask,
    GenerationFinished,
    GenerationProgress,
    GenerationQuery,
    GenerationStarted,
)
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import DecodedMasks
from tests.unit.usecases.test_embedder import DOG, MANIFEST, Bench

QUERY = GenerationQuery(DOG, AutomaticMaskParameters(points_per_side=4, points_per_batch=4, stability_score_thresh=0))


class DiscDecoder:
    """For each point a disc around it, three times, with predicted IoUs of 0.99, 0.9 and 0.5."""

    def __init__(self) -> None:
        self.batches = 0

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        self.batches += 1
        centres = (np.arange(MANIFEST.low_res_size) + 0.5) * MANIFEST.image_size / MANIFEST.low_res_size
        x, y = prompts.point_coords[:, 0, 0, None, None], prompts.point_coords[:, 0, 1, None, None]
        disc = 20 * (5 - np.hypot(centres[None, None, :] - x, centres[None, :, None] - y))
        masks = np.repeat(disc[:, None], 4, axis=1).astype(np.float32)
        ious = np.tile(np.array([0.0, 0.99, 0.9, 0.5], dtype=np.float32), (len(prompts), 1))
        return DecodedMasks(masks, ious, 0.0, 0.0)


class GeneratorBench:
    def __init__(self) -> None:
        bench = Bench()
        bench.encoder.let.set()
        self.decoder = DiscDecoder()
        self.requests, self.generations = Admission("requests", 4, 1.0), Admission("generations", 1, 1.0)
        self.generator = AutomaticMaskGenerator(
            manifest=MANIFEST,
            embedder=bench.embedder,
            mask_decoder=self.decoder,
            labeler=OpenCvComponentLabeler(),
            requests=self.requests,
            generations=self.generations,
        )


async def test_of_equal_masks_the_one_of_the_highest_predicted_iou_stays() -> None:
    bench = GeneratorBench()
    events = [event async for event in bench.generator.generate(QUERY, lambda mask: mask)]
    masks = [event for event in events if isinstance(event, GeneratedMask)]
    assert [type(event) for event in events[:5]] == [GenerationStarted, *[GenerationProgress] * 4]
    assert isinstance(events[-1], GenerationFinished)
    assert events[-1].masks == len(masks) == 16
    assert {round(mask.mask.iou_prediction, 2) for mask in masks} == {0.99}
    assert [mask.point for mask in masks[:4]] == [(5.0, 3.75), (15.0, 3.75), (25.0, 3.75), (35.0, 3.75)]


async def test_nothing_runs_ahead_of_the_caller_or_after_it_has_gone() -> None:
    bench = GeneratorBench()
    async with aclosing(bench.generator.generate(QUERY, lambda mask: mask)) as events:
        assert isinstance(await anext(events), GenerationStarted)
        assert bench.decoder.batches == 0
        assert isinstance(await anext(events), GenerationProgress)
        assert bench.decoder.batches == 1
        assert (bench.requests.in_flight, bench.generations.in_flight) == (1, 1)
        with pytest.raises(Overloaded):
            await anext(bench.generator.generate(QUERY, lambda mask: mask))
    assert bench.decoder.batches == 1
    assert (bench.requests.in_flight, bench.generations.in_flight) == (0, 0)


async def test_more_masks_than_can_be_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samserve.usecases.automatic, "_MAX_HELD_BYTES", 100)
    bench = GeneratorBench()
    with pytest.raises(InvalidParameter, match="pred_iou_thresh: lets more masks through"):
        async for _ in bench.generator.generate(QUERY, lambda mask: mask):
            pass
    assert bench.generations.in_flight == 0
