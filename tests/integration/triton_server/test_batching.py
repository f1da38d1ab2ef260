"""Triton batches prompts that wait for the decoder at the same time, also on different images."""

import asyncio
from typing import Any, NamedTuple

import numpy as np
import pytest

from samserve.domain.manifest import DECODER
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served
from tests.support.triton_gateways import BY_WIRE, logits, on_triton, request
from tests.support.triton_server import TritonServer, eventually

IMAGES = 8
BOX = pb.Prompt(box=pb.Box(x0=5, y0=5, x1=40, y1=40))


@pytest.mark.parametrize("settings", [{}, BY_WIRE], ids=["shared memory", "wire"])
async def test_prompts_on_different_images_run_as_one_batch(triton: TritonServer, settings: dict[str, Any]) -> None:
    async with on_triton(triton, **settings) as served:
        messages = [request(seed, BOX if seed % 2 else PNG_CLICK) for seed in range(IMAGES)]
        alone = [logits(await served.stub.Segment(message)) for message in messages]
        before = await decoder_counts(triton, served)
        triton.pause_model(DECODER)
        calls = [asyncio.ensure_future(served.stub.Segment(messages[0]))]
        await triton.holds(DECODER)
        # That one would run, and the others wait for it.
        calls += [asyncio.ensure_future(served.stub.Segment(message)) for message in messages[1:]]
        await eventually(lambda: triton.counted("nv_inference_pending_request_count", model=DECODER) == IMAGES - 1)
        triton.resume()
        together = [logits(call) for call in await asyncio.gather(*calls)]
        after = await decoder_counts(triton, served)
        # Beside the batch and the one that it waited for, the run that the first reading of the counters held.
        assert after.rows - before.rows == IMAGES + 1
        assert after.runs - before.runs == 2 + 1
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(other, one, atol=0.01)


async def test_many_prompts_on_one_image_are_one_row_of_one_run(triton: TritonServer) -> None:
    async with on_triton(triton) as served:
        await served.stub.Segment(request(1))
        before = await decoder_counts(triton, served)
        answer = await served.stub.Segment(request(1, *([PNG_CLICK, BOX] * 10)))
        after = await decoder_counts(triton, served)
        assert (after.rows - before.rows, after.runs - before.runs) == (1 + 1, 1 + 1)
        assert len(answer.results) == 20
        np.testing.assert_allclose(logits(answer)[-6:], logits(answer)[:6], atol=0.01)


class Counts(NamedTuple):
    """What the decoder has run: rows, and runs of one row or more."""

    rows: int
    runs: int


async def decoder_counts(triton: TritonServer, served: Served) -> Counts:
    """What was run before this call.

    Triton counts a run after it has answered it and before it begins the next. So the counters are read while a further
    run, which is not counted yet, is held.
    """
    triton.pause_model(DECODER)
    held = asyncio.ensure_future(served.stub.Segment(request(1)))
    await triton.holds(DECODER)
    names = ("nv_inference_count", "nv_inference_exec_count")
    counts = Counts(*[await asyncio.to_thread(triton.counted, name, model=DECODER) for name in names])
    triton.resume()
    await held
    return counts
