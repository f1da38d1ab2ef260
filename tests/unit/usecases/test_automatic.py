"""The mask generator on fake models: order of events, crops, filters, and no work ahead of the caller."""

from contextlib import aclosing
from dataclasses import replace

import cv2
import numpy as np
import pytest

import samserve.usecases.automatic
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.embedding import Embedding
from samserve.domain.errors import CapacityExceeded, InvalidParameter
from samserve.domain.geometry import CropBox
from samserve.domain.prompts import PromptBatch
from samserve.usecases.automatic import (
    AcceptedMask,
    GenerationFinished,
    GenerationProgress,
    GenerationQuery,
    GenerationStarted,
)
from samserve.usecases.ports import DecodedMasks
from tests.support.embedder_bench import DOG, SIZE
from tests.support.generator_bench import DiscDecoder, GeneratorBench
from tests.support.rendered import pixels

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


async def test_generation_advances_only_while_the_caller_reads() -> None:
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


async def test_masks_of_small_crops_are_placed_on_the_whole_image_and_found_once() -> None:
    bench = GeneratorBench()
    parameters = replace(QUERY.parameters, crop_n_layers=1, crop_nms_thresh=0.3)
    events = [event async for event in bench.generator.generate(replace(QUERY, parameters=parameters))]
    assert isinstance(events[0], GenerationStarted)
    assert events[0].points_total == 5 * 16
    masks = [event for event in events if isinstance(event, AcceptedMask)]
    crops = {mask.crop_box for mask in masks}
    assert CropBox(0, 0, SIZE.width, SIZE.height) in crops
    assert len(crops) > 1
    for mask in masks:
        found = pixels(mask.mask)
        assert found.shape == SIZE
        x, y = mask.point
        assert found[int(y), int(x)]
    # Clicks on the corners of what crops share find the same discs, which are counted once.
    assert len(masks) < 5 * 16


class SpeckledDecoder(DiscDecoder):
    """Beside each disc a speck far from it."""

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        decoded = await super().decode(embedding, prompts)
        masks = decoded.low_res_masks.copy()
        masks[:, :, 2, 30] = 5000
        return replace(decoded, low_res_masks=masks)


@pytest.mark.parametrize(("min_mask_region_area", "regions"), [(0, 2), (15, 1)])
async def test_small_regions_are_removed_where_that_is_asked_for(min_mask_region_area: int, regions: int) -> None:
    bench = GeneratorBench(SpeckledDecoder())
    parameters = replace(QUERY.parameters, min_mask_region_area=min_mask_region_area)
    events = [event async for event in bench.generator.generate(replace(QUERY, parameters=parameters))]
    masks = [event for event in events if isinstance(event, AcceptedMask) and event.point[0] < SIZE.width / 2]
    assert masks
    for mask in masks:
        assert cv2.connectedComponents(pixels(mask.mask).astype(np.uint8))[0] - 1 == regions


async def test_masks_that_are_whole_pass_the_removal_of_small_regions_as_they_are() -> None:
    parameters = replace(QUERY.parameters, min_mask_region_area=6)
    plain, cleaned = [
        [event async for event in GeneratorBench().generator.generate(query) if isinstance(event, AcceptedMask)]
        for query in (QUERY, replace(QUERY, parameters=parameters))
    ]
    assert [mask.point for mask in cleaned] == [mask.point for mask in plain]
    for one, other in zip(cleaned, plain, strict=True):
        np.testing.assert_array_equal(pixels(one.mask), pixels(other.mask))


async def test_masks_below_the_thresholds_are_dropped() -> None:
    for parameters in (
        replace(QUERY.parameters, pred_iou_thresh=0.995),
        replace(QUERY.parameters, stability_score_thresh=1.0, stability_score_offset=100.0),
    ):
        query = replace(QUERY, parameters=parameters)
        events = [event async for event in GeneratorBench().generator.generate(query)]
        assert not [event for event in events if isinstance(event, AcceptedMask)]
        assert isinstance(events[-1], GenerationFinished)
        assert events[-1].masks == 0
