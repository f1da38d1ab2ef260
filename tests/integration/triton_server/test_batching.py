"""What waits for the decoder at the same time becomes one batch of Triton's, whatever image it is about."""

import asyncio
from typing import Any

import numpy as np
import pytest

from samserve.domain.manifest import DECODER
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK
from tests.support.triton_gateways import BY_WIRE, logits, on_triton, request
from tests.support.triton_server import TritonServer, eventually

IMAGES = 8
BOX = pb.Prompt(box=pb.Box(x0=5, y0=5, x1=40, y1=40))


@pytest.mark.parametrize("settings", [{}, BY_WIRE], ids=["shared memory", "wire"])
async def test_prompts_on_different_images_run_as_one_batch(triton: TritonServer, settings: dict[str, Any]) -> None:
    async with on_triton(triton, **settings) as served:
        messages = [request(seed, BOX if seed % 2 else PNG_CLICK) for seed in range(IMAGES)]
        alone = [logits(await served.stub.Segment(message)) for message in messages]
        before = await settled_counts(triton)
        triton.pause_model(DECODER)
        calls = [asyncio.ensure_future(served.stub.Segment(messages[0]))]
        await triton.holds(DECODER)
        # That one would run, and the others wait for it.
        calls += [asyncio.ensure_future(served.stub.Segment(message)) for message in messages[1:]]
        await eventually(lambda: triton.counted("nv_inference_pending_request_count", model=DECODER) == IMAGES - 1)
        triton.resume()
        together = [logits(call) for call in await asyncio.gather(*calls)]
        inferences, executions = (
            after - start for after, start in zip(await settled_counts(triton), before, strict=True)
        )
        assert inferences == IMAGES
        assert executions == 2
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(other, one, atol=0.01)


async def test_many_prompts_on_one_image_are_one_row_of_one_run(triton: TritonServer) -> None:
    async with on_triton(triton) as served:
        await served.stub.Segment(request(1))
        before = await settled_counts(triton)
        answer = await served.stub.Segment(request(1, *([PNG_CLICK, BOX] * 10)))
        after = await settled_counts(triton)
        assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
        assert len(answer.results) == 20
        np.testing.assert_allclose(logits(answer)[-6:], logits(answer)[:6], atol=0.01)


async def settled_counts(triton: TritonServer) -> tuple[int, int]:
    """How many rows the decoder has run, and in how many runs. Triton counts them a moment after it has answered."""
    await asyncio.sleep(0.5)
    names = ("nv_inference_count", "nv_inference_exec_count")
    rows, runs = [await asyncio.to_thread(triton.counted, name, model=DECODER) for name in names]
    return rows, runs
