"""The generator's order of work, on ports made for the test: nothing runs ahead of the caller or after it has gone."""

from contextlib import aclosing

import pytest

import samserve.usecases.automatic
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.errors import CapacityExceeded, InvalidParameter
from samserve.usecases.automatic import (
    AcceptedMask,
    GenerationFinished,
    GenerationProgress,
    GenerationQuery,
    GenerationStarted,
)
from tests.support.embedder_bench import DOG
from tests.support.generator_bench import GeneratorBench

QUERY = GenerationQuery(DOG, AutomaticMaskParameters(points_per_side=4, points_per_batch=4, stability_score_thresh=0))


async def test_of_equal_masks_the_one_of_the_highest_predicted_iou_stays() -> None:
    bench = GeneratorBench()
    events = [event async for event in bench.generator.generate(QUERY)]
    masks = [event for event in events if isinstance(event, AcceptedMask)]
    assert [type(event) for event in events[:5]] == [GenerationStarted, *[GenerationProgress] * 4]
    assert isinstance(events[-1], GenerationFinished)
    assert events[-1].masks == len(masks) == 16
    assert {round(mask.mask.iou_prediction, 2) for mask in masks} == {0.99}
    assert [mask.point for mask in masks[:4]] == [(5.0, 3.75), (15.0, 3.75), (25.0, 3.75), (35.0, 3.75)]


async def test_nothing_runs_ahead_of_the_caller_or_after_it_has_gone() -> None:
    bench = GeneratorBench()
    async with aclosing(bench.generator.generate(QUERY)) as events:
        assert isinstance(await anext(events), GenerationStarted)
        assert bench.decoder.batches == 0
        assert isinstance(await anext(events), GenerationProgress)
        assert bench.decoder.batches == 1
        assert (bench.requests.in_flight, bench.generations.in_flight) == (1, 1)
        with pytest.raises(CapacityExceeded):
            await anext(bench.generator.generate(QUERY))
    assert bench.decoder.batches == 1
    assert (bench.requests.in_flight, bench.generations.in_flight) == (0, 0)


async def test_more_masks_than_can_be_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samserve.usecases.automatic, "_MAX_HELD_BYTES", 100)
    bench = GeneratorBench()
    with pytest.raises(InvalidParameter, match="pred_iou_thresh: too low: more masks pass"):
        async for _ in bench.generator.generate(QUERY):
            pass
    assert bench.generations.in_flight == 0
