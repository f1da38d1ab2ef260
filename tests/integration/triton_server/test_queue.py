"""Cancelled and expired requests are not run, and requests beyond the queue are refused: by Triton's counters."""

import asyncio
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from modeling.repository import CONFIG_FILE
from samserve.adapters.triton import TritonSession
from samserve.adapters.triton.connection import TritonConnection
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import DECODER, ENCODER
from samserve.domain.prompts import PROMPTS_PER_DECODE, CoordinateSpace, ObjectPrompt, batch_prompts
from samserve.usecases.ports import DecodedImage
from samserve.usecases.timings import StageTimings
from samserve.v1 import segmentation_pb2 as pb
from stack.triton_server import TritonInstallation
from tests.support.gateway import Served, photo, refusal
from tests.support.triton_gateways import MIB, on_triton, request
from tests.support.triton_server import TritonServer, eventually

QUEUE_SIZE = 2
QUEUE_SECONDS = 0.5


@pytest.fixture(scope="module")
def narrow_triton(
    installation: TritonInstallation, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """A Triton whose decoder has hardly any queue."""
    folder = tmp_path_factory.mktemp("narrow") / "models"
    shutil.copytree(repository, folder)
    path = folder / DECODER / CONFIG_FILE
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    config.dynamic_batching.default_queue_policy.max_queue_size = QUEUE_SIZE
    config.dynamic_batching.default_queue_policy.default_timeout_microseconds = round(1e6 * QUEUE_SECONDS)
    path.write_text(text_format.MessageToString(config))
    server = TritonServer(installation, folder, folder.parent / "triton.log")
    server.start()
    yield server
    server.stop()


def pending(triton: TritonServer, model: str) -> int:
    return triton.counted("nv_inference_pending_request_count", model=model)


async def occupy(
    triton: TritonServer, model: str, served: Served, image: int = 100
) -> "asyncio.Future[pb.SegmentResponse]":
    """Have the model run something, one image or its prompt, that does not end until `resume`."""
    await served.stub.Segment(request(1))
    triton.pause_model(model)
    running = asyncio.ensure_future(served.stub.Segment(request(1 if model == DECODER else image)))
    await triton.holds(model)
    return running


async def queued_behind(
    triton: TritonServer, model: str, served: Served, ahead: int
) -> "asyncio.Future[pb.SegmentResponse]":
    """A request that Triton has after it has heard what became of those before it, on the same connection."""
    await eventually(lambda: served.counted("samserve_in_flight", limit="requests") == 1)
    behind = asyncio.ensure_future(served.stub.Segment(request(1 if model == DECODER else 900)))
    await eventually(lambda: pending(triton, model) == ahead + 1)
    return behind


async def run_until_now(triton: TritonServer, model: str, served: Served) -> int:
    """The rows that the model has run. Triton counts a run before it begins the next, which is held meanwhile."""
    running = await occupy(triton, model, served, image=950)
    count = triton.counted("nv_inference_count", model=model)
    triton.resume()
    await running
    return count - (model == DECODER)


@pytest.mark.parametrize("model", [ENCODER, DECODER])
async def test_cancelled_requests_are_cancelled_in_triton(triton: TritonServer, model: str) -> None:
    async with on_triton(triton) as served:
        running = await occupy(triton, model, served)
        run = triton.counted("nv_inference_count", model=model)
        cancelled = triton.counted("nv_inference_request_failure", model=model, reason="CANCELED")
        calls = [served.stub.Segment(request(1 if model == DECODER else 200 + seed)) for seed in range(5)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await eventually(lambda: pending(triton, model) == 5)
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        behind = await queued_behind(triton, model, served, ahead=5)
        triton.resume()
        assert (await running).results
        assert (await behind).results
        assert await run_until_now(triton, model, served) == run + 2
        assert triton.counted("nv_inference_request_failure", model=model, reason="CANCELED") == cancelled + 5


@pytest.mark.parametrize("model", [ENCODER, DECODER])
async def test_requests_whose_deadline_passed_in_the_queue_are_never_run(triton: TritonServer, model: str) -> None:
    async with on_triton(triton) as served:
        running = await occupy(triton, model, served)
        run = triton.counted("nv_inference_count", model=model)
        calls = [served.stub.Segment(request(1 if model == DECODER else 300 + seed), timeout=2.0) for seed in range(5)]
        refusing = [asyncio.ensure_future(refusal(call)) for call in calls]
        await eventually(lambda: pending(triton, model) == 5)
        refusals = await asyncio.gather(*refusing)
        assert {refused.code for refused in refusals} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        behind = await queued_behind(triton, model, served, ahead=5)
        triton.resume()
        assert (await running).results
        assert (await behind).results
        assert await run_until_now(triton, model, served) == run + 2


async def test_late_output_of_a_cancelled_request_overwrites_no_other_result(triton: TritonServer) -> None:
    connection = TritonConnection(triton.address, poll_seconds=5, infer_seconds=30)
    manifest = await connection.manifest()
    # Of four masks for each prompt, in single precision, and as much again.
    scratch_bytes = 2 * PROMPTS_PER_DECODE * 4 * 4 * manifest.low_res_size**2
    session = await TritonSession.open(connection, manifest, cache_bytes=MIB, scratch_bytes=scratch_bytes)
    assert session.transport == "shared_memory"
    side = manifest.image_size
    frame = ImageFrame(Size(side, side), side)
    image = DecodedImage(np.full((3, side, side), 99, np.uint8), frame, StageTimings())
    embedding = Embedding((await session.encoder.encode(image)).values.copy(), frame)
    # So many that their masks would lie over whatever is put into the memory next.
    clicks = [ObjectPrompt(np.array([[x, 50.0]]), np.ones(1, np.int32)) for x in range(PROMPTS_PER_DECODE)]
    prompts = batch_prompts(clicks, CoordinateSpace.PIXELS, frame, manifest.low_res_size)
    run = triton.counted("nv_inference_count", model=DECODER)
    triton.pause_model(DECODER)
    abandoned = asyncio.ensure_future(session.decoder.decode(embedding, prompts))
    await triton.holds(DECODER)
    abandoned.cancel()
    await asyncio.wait((abandoned,))
    # Its traceback would keep its arrays.
    del abandoned
    gc.collect()
    encoded = await session.encoder.encode(image)
    expected = encoded.values.copy()
    triton.resume()
    # Triton counts a run after it has written its outputs.
    await eventually(lambda: triton.counted("nv_inference_count", model=DECODER) == run + 1)
    np.testing.assert_array_equal(encoded.values, expected)
    await session.close()
    await connection.aclose()


async def test_more_than_the_queue_holds_is_refused_with_a_time_to_retry(narrow_triton: TritonServer) -> None:
    async with on_triton(narrow_triton) as served:
        # Encoded ahead, so that all are in the queue, or refused, long before it moves.
        await served.stub.Segment(request(1))
        running = await occupy(narrow_triton, DECODER, served)
        calls = [asyncio.ensure_future(refusal(served.stub.Segment(request(1)))) for _ in range(6)]
        await eventually(lambda: sum(call.done() for call in calls) == 6 - QUEUE_SIZE)
        # The other two wait for longer than Triton's queue lets them, which it finds out when the queue moves.
        await asyncio.sleep(2 * QUEUE_SECONDS)
        run = narrow_triton.counted("nv_inference_count", model=DECODER)
        narrow_triton.resume()
        refusals = await asyncio.gather(*calls)
        assert {refused.code for refused in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all(refused.retry_after_seconds for refused in refusals)
        assert (await running).results
        assert await run_until_now(narrow_triton, DECODER, served) == run + 1
        assert narrow_triton.counted("nv_inference_request_failure", model=DECODER, reason="REJECTED") >= 2


async def test_embedding_for_several_callers_survives_all_but_one_cancelling(triton: TritonServer) -> None:
    async with on_triton(triton) as served:
        await served.stub.Segment(request(1))
        triton.pause_model(ENCODER)
        message = pb.EmbedImageRequest(image=pb.Image(data=photo(400)))
        calls = [served.stub.EmbedImage(message) for _ in range(3)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await triton.holds(ENCODER)
        for call in calls[:2]:
            call.cancel()
        await eventually(lambda: served.counted("samserve_in_flight", limit="requests") == 1)
        triton.resume()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[2], pb.EmbedImageResponse)
