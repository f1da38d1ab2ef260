"""Calls of many prompts on the decoder of ONNX Runtime, which are several runs."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest

from samserve.adapters.onnxruntime import Arrays, OnnxRuntimeMaskDecoder
from samserve.domain.embedding import Embedding
from samserve.domain.errors import ModelUnavailable
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import DECODER, ModelManifest
from samserve.domain.prompts import PromptBatch, click_prompts
from samserve.gateway.settings import default_model_repository
from samserve.usecases.ports import DecodedMasks
from samserve.usecases.timings import Stage

REPOSITORY = default_model_repository()
MANIFEST = ModelManifest.read(REPOSITORY)
SIZE = Size(60, 80)
RNG = np.random.default_rng(0)
EMBEDDING = Embedding(
    RNG.normal(size=MANIFEST.embedding_shape).astype(np.float16), ImageFrame(SIZE, MANIFEST.image_size)
)


def clicks(count: int) -> PromptBatch:
    points = np.random.default_rng(count).random((count, 2)) * [SIZE.width, SIZE.height]
    return click_prompts(points, EMBEDDING.frame, MANIFEST.low_res_size)


class Counted:
    """A decoder whose runs are counted.

    Attributes:
        runs: that were asked for, cancelled ones included.
        most_at_once: of these.
    """

    def __init__(self, threads: int) -> None:
        self.decoder = OnnxRuntimeMaskDecoder(REPOSITORY, threads)
        self.runs = self.most_at_once = self._asked = 0
        self._run = self.decoder._engine.run
        self.decoder._engine.run = self._counted  # type: ignore[method-assign]

    async def _counted(self, inputs: Arrays) -> Any:
        self.runs += 1
        self._asked += 1
        self.most_at_once = max(self.most_at_once, self._asked)
        try:
            return await self._run(inputs)
        finally:
            self._asked -= 1

    async def decode(self, count: int) -> DecodedMasks:
        return await self.decoder.decode(EMBEDDING, clicks(count))


@pytest.fixture
def one_thread() -> Iterator[Counted]:
    counted = Counted(1)
    yield counted
    counted.decoder.close()


@pytest.fixture
def two_threads() -> Iterator[Counted]:
    counted = Counted(2)
    yield counted
    counted.decoder.close()


@pytest.mark.parametrize("count", [1, 8, 19])
async def test_each_prompt_gets_the_masks_of_the_graph(two_threads: Counted, count: int) -> None:
    prompts = clicks(count)
    session = onnxruntime.InferenceSession(REPOSITORY / DECODER / "1" / "model.onnx")
    low_res_masks, iou_predictions = session.run(
        ["low_res_masks", "iou_predictions"],
        {
            "image_embeddings": EMBEDDING.values[None],
            "point_coords": prompts.point_coords[None],
            "point_labels": prompts.point_labels[None],
            "mask_input": prompts.mask_input[None],
            "has_mask_input": prompts.has_mask_input[None],
        },
    )
    decoded = await two_threads.decode(count)
    np.testing.assert_allclose(decoded.low_res_masks, low_res_masks[0], atol=1e-3)
    np.testing.assert_allclose(decoded.iou_predictions, iou_predictions[0], atol=1e-4)


async def test_many_prompts_are_runs_on_all_threads(two_threads: Counted) -> None:
    await two_threads.decode(20)
    assert (two_threads.runs, two_threads.most_at_once) == (3, 2)


async def test_a_click_does_not_wait_for_all_prompts_of_the_call_before_it(one_thread: Counted) -> None:
    many = asyncio.ensure_future(one_thread.decode(60))
    await asyncio.sleep(0)
    await one_thread.decode(1)
    assert not many.done()
    assert len((await many).low_res_masks) == 60


async def test_the_wait_for_a_thread_is_told_from_the_computation(one_thread: Counted) -> None:
    before = [asyncio.ensure_future(one_thread.decode(1)) for _ in range(20)]
    await asyncio.sleep(0)
    decoded = await one_thread.decode(17)
    waited_for = sum(earlier.timings[Stage.MASK_DECODE] for earlier in await asyncio.gather(*before))
    assert decoded.timings[Stage.QUEUE] >= 0.9 * waited_for


async def test_prompts_of_a_call_that_is_cancelled_are_not_run(two_threads: Counted) -> None:
    many = asyncio.ensure_future(two_threads.decode(60))
    await two_threads.decode(1)
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    runs = two_threads.runs
    for _ in range(3):
        await two_threads.decode(1)
    assert two_threads.runs == runs + 3


async def test_a_stopped_decoder_says_that_it_is_unavailable() -> None:
    decoder = OnnxRuntimeMaskDecoder(REPOSITORY, threads=2)
    decoder.close()
    with pytest.raises(ModelUnavailable):
        await decoder.decode(EMBEDDING, clicks(5))
