"""Calls of many prompts on the decoder of ONNX Runtime, which are several runs."""

import asyncio
from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest

from samserve.adapters.onnxruntime import OnnxRuntimeMaskDecoder
from samserve.domain.embedding import Embedding
from samserve.domain.errors import ModelUnavailable
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import DECODER, ModelManifest
from samserve.domain.prompts import PromptBatch, click_prompts
from samserve.gateway.settings import default_model_repository
from samserve.usecases.ports import DecodedMasks
from samserve.usecases.timings import Stage
from tests.support.model_gate import ModelGate, gated
from tests.support.waiting import settled

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


@pytest.fixture
def gate() -> Iterator[ModelGate]:
    """Counts the decoder's runs, and holds them while it is shut."""
    with gated("point_coords") as gate:
        yield gate


@pytest.fixture
def one_thread() -> Iterator[OnnxRuntimeMaskDecoder]:
    decoder = OnnxRuntimeMaskDecoder(REPOSITORY, threads=1)
    yield decoder
    decoder.close()


@pytest.fixture
def two_threads() -> Iterator[OnnxRuntimeMaskDecoder]:
    decoder = OnnxRuntimeMaskDecoder(REPOSITORY, threads=2)
    yield decoder
    decoder.close()


async def decode(decoder: OnnxRuntimeMaskDecoder, prompts: int) -> DecodedMasks:
    return await decoder.decode(EMBEDDING, clicks(prompts))


@pytest.mark.parametrize("count", [1, 8, 19])
async def test_each_prompt_gets_the_masks_of_the_graph(two_threads: OnnxRuntimeMaskDecoder, count: int) -> None:
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
    decoded = await decode(two_threads, count)
    np.testing.assert_allclose(decoded.low_res_masks, low_res_masks[0], atol=1e-3)
    np.testing.assert_allclose(decoded.iou_predictions, iou_predictions[0], atol=1e-4)


async def test_many_prompts_are_runs_on_all_threads(gate: ModelGate, two_threads: OnnxRuntimeMaskDecoder) -> None:
    gate.shut()
    decoding = asyncio.ensure_future(decode(two_threads, 20))
    await gate.holds(2)
    gate.open()
    await decoding
    assert gate.begun == 3


async def test_a_click_does_not_wait_for_all_prompts_of_the_call_before_it(
    gate: ModelGate, one_thread: OnnxRuntimeMaskDecoder
) -> None:
    gate.shut()
    many = asyncio.ensure_future(decode(one_thread, 60))
    await gate.holds()
    click = asyncio.ensure_future(decode(one_thread, 1))
    await settled()
    gate.open()
    await click
    assert not many.done()
    assert len((await many).low_res_masks) == 60


async def test_queue_time_and_computation_are_timed_separately(one_thread: OnnxRuntimeMaskDecoder) -> None:
    before = [asyncio.ensure_future(decode(one_thread, 1)) for _ in range(20)]
    await asyncio.sleep(0)
    decoded = await decode(one_thread, 17)
    waited_for = sum(earlier.timings[Stage.MASK_DECODE] for earlier in await asyncio.gather(*before))
    assert decoded.timings[Stage.QUEUE] >= 0.9 * waited_for


async def test_prompts_of_a_call_that_is_cancelled_are_not_run(
    gate: ModelGate, two_threads: OnnxRuntimeMaskDecoder
) -> None:
    gate.shut()
    many = asyncio.ensure_future(decode(two_threads, 60))
    await gate.holds(2)
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    gate.open()
    # Runs begin in their order, so a left one would have begun before this.
    await decode(two_threads, 1)
    assert gate.begun == 3


async def test_a_stopped_decoder_says_that_it_is_unavailable() -> None:
    decoder = OnnxRuntimeMaskDecoder(REPOSITORY, threads=2)
    decoder.close()
    with pytest.raises(ModelUnavailable):
        await decoder.decode(EMBEDDING, clicks(5))
