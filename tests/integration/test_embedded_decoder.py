"""Calls of many prompts on the embedded decoder, which are several runs."""

import asyncio
from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest

from samserve.adapters.embedded import Arrays, EmbeddedMaskDecoder
from samserve.domain.embedding import Embedding
from samserve.domain.errors import ModelUnavailable
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import DECODER, ModelManifest
from samserve.domain.prompts import PromptBatch, click_prompts
from samserve.settings import default_model_repository

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
def decoder() -> Iterator[EmbeddedMaskDecoder]:
    decoder = EmbeddedMaskDecoder(REPOSITORY, threads=2)
    yield decoder
    decoder.close()


@pytest.mark.parametrize("count", [1, 2, 9])
async def test_each_prompt_gets_the_masks_of_the_graph(decoder: EmbeddedMaskDecoder, count: int) -> None:
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
    decoded = await decoder.decode(EMBEDDING, prompts)
    np.testing.assert_allclose(decoded.low_res_masks, low_res_masks[0], atol=1e-3)
    np.testing.assert_allclose(decoded.iou_predictions, iou_predictions[0], atol=1e-4)


async def test_a_click_does_not_wait_for_all_prompts_of_the_call_before_it(decoder: EmbeddedMaskDecoder) -> None:
    many = asyncio.ensure_future(decoder.decode(EMBEDDING, clicks(60)))
    await asyncio.sleep(0)
    one = await decoder.decode(EMBEDDING, clicks(1))
    assert not many.done()
    assert one.queue_seconds > 0
    assert len((await many).low_res_masks) == 60


async def test_prompts_of_a_call_that_is_cancelled_are_not_run(decoder: EmbeddedMaskDecoder) -> None:
    runs = 0
    run = decoder._engine.run

    async def counted(inputs: Arrays) -> tuple[Arrays, float, float]:
        nonlocal runs
        runs += 1
        return await run(inputs)

    decoder._engine.run = counted  # type: ignore[method-assign]
    many = asyncio.ensure_future(decoder.decode(EMBEDDING, clicks(60)))
    await decoder.decode(EMBEDDING, clicks(1))
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    await decoder.decode(EMBEDDING, clicks(1))
    assert runs < 30


async def test_a_stopped_decoder_says_that_it_is_unavailable() -> None:
    decoder = EmbeddedMaskDecoder(REPOSITORY, threads=2)
    decoder.close()
    with pytest.raises(ModelUnavailable):
        await decoder.decode(EMBEDDING, clicks(5))
