"""Triton not up yet, killed, hung, and restarted, with the same model and with another: what callers and probes see."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from benchmarks.triton_transport import HOLLOW, write_hollow
from samserve.domain.manifest import DECODER, ENCODER
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Refusal, Served, photo, refusal, serving
from tests.support.triton_gateways import (
    BY_WIRE,
    FOLLOWS_SECONDS,
    NOT_SERVING,
    SERVICE,
    SERVING,
    becomes,
    check_unavailable,
    health,
    logits,
    on_triton,
    request,
    start,
    transport,
)
from tests.support.triton_server import TritonServer

ASKING = 4
"""Callers that go on asking while Triton is exchanged."""


NewTriton = Callable[[], TritonServer]
both_transports = pytest.mark.parametrize("settings", [{}, BY_WIRE], ids=["shared memory", "wire"])


async def test_a_gateway_that_is_up_before_triton_serves_once_triton_does(new_triton: NewTriton) -> None:
    triton = new_triton()
    async with on_triton(triton) as served:
        assert [await health(served, service) for service in ("", SERVICE, "liveness")] == [
            NOT_SERVING,
            NOT_SERVING,
            SERVING,
        ]
        check_unavailable(await refusal(served.stub.Segment(request(1), timeout=10)))
        check_unavailable(await refusal(served.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)))
        await start(triton)
        await becomes(served, SERVING)
        assert (await served.stub.Segment(request(1))).results
        assert await transport(served) == "shared_memory"


@both_transports
async def test_embeddings_survive_triton_being_killed_and_restarted(
    new_triton: NewTriton, settings: dict[str, Any]
) -> None:
    triton = new_triton()
    await start(triton)
    async with on_triton(triton, **settings) as served:
        before = await served.stub.Segment(request(1))
        in_flight = await hold(triton, served)
        triton.kill()
        check_unavailable(await in_flight)
        await becomes(served, NOT_SERVING)
        check_unavailable(await refusal(served.stub.Segment(request(1), timeout=10)))
        check_unavailable(await refusal(served.stub.Segment(request(2), timeout=10)))
        triton.open_gates()
        await start(triton)
        await becomes(served, SERVING)
        after = await served.stub.Segment(request(1))
        assert after.embedding_source == pb.EMBEDDING_SOURCE_MEMORY
        assert await transport(served) == ("wire" if settings else "shared_memory")
        np.testing.assert_allclose(logits(after), logits(before), atol=0.01)


async def test_a_hung_triton_fails_calls_within_seconds(new_triton: NewTriton) -> None:
    triton = new_triton()
    await start(triton)
    async with on_triton(triton) as served:
        await served.stub.Segment(request(1))
        triton.pause()
        started = time.monotonic()
        patient = asyncio.ensure_future(refusal(served.stub.Segment(request(1), timeout=60)))
        hurried = await refusal(served.stub.Segment(request(2), timeout=1))
        assert hurried.code is grpc.StatusCode.DEADLINE_EXCEEDED
        check_unavailable(await patient)
        assert time.monotonic() - started < FOLLOWS_SECONDS
        await becomes(served, NOT_SERVING)
        check_unavailable(await refusal(served.stub.Segment(request(1), timeout=60)))
        triton.resume()
        await becomes(served, SERVING)
        assert (await served.stub.Segment(request(1))).embedding_source == pb.EMBEDDING_SOURCE_MEMORY
        assert await transport(served) == "shared_memory"


@both_transports
async def test_no_embedding_of_the_old_model_is_served_by_the_new_one(
    new_triton: NewTriton, other_repository: Path, settings: dict[str, Any]
) -> None:
    triton = new_triton()
    await start(triton)
    async with on_triton(triton, **settings) as served:
        old, old_other = [await served.stub.Segment(request(seed)) for seed in (1, 2)]
        old_info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
        triton.kill()
        asking = asyncio.gather(
            *(first_answer_of_another_model(served, old, old_info.fingerprint) for _ in range(ASKING))
        )
        await start(triton, other_repository)
        first = await asking
        await becomes(served, SERVING)
        info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
        assert info.fingerprint == "sha256:" + "07" * 32
        by_id = pb.SegmentRequest(image=pb.Image(image_id=old_other.image_id), prompts=[PNG_CLICK])
        assert (await refusal(served.stub.Segment(by_id))).code is grpc.StatusCode.NOT_FOUND
        assert not (await served.stub.Segment(request(2))).cached
    async with serving(model_repository=other_repository) as embedded:
        expected = logits(await embedded.stub.Segment(request(1)))
        for answer in first:
            np.testing.assert_allclose(logits(answer), expected, atol=0.05, rtol=0.01)
        assert not np.allclose(logits(old), expected, atol=0.5)


async def test_flights_that_the_old_model_does_not_end_are_refused(
    new_triton: NewTriton, other_repository: Path
) -> None:
    triton = new_triton()
    await start(triton)
    async with on_triton(triton) as served:
        triton.pause_model(ENCODER)
        message = pb.EmbedImageRequest(image=pb.Image(data=photo(5)))
        waiting = [asyncio.ensure_future(refusal(served.stub.EmbedImage(message))) for _ in range(3)]
        await triton.holds(ENCODER)
        triton.kill()
        for refused in await asyncio.gather(*waiting):
            check_unavailable(refused)
        triton.open_gates()
        await start(triton, other_repository)
        await becomes(served, SERVING)
        assert not (await served.stub.EmbedImage(message)).cached


async def test_a_model_of_other_sizes_takes_over(new_triton: NewTriton, tmp_path: Path) -> None:
    triton = new_triton()
    await start(triton)
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    write_hollow(hollow)
    async with on_triton(triton, memory_cache_bytes=16 << 20, triton_scratch_bytes=32 << 20) as served:
        assert (await served.stub.Segment(request(1))).results
        triton.kill()
        await becomes(served, NOT_SERVING)
        await start(triton, hollow)
        await becomes(served, SERVING)
        info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
        assert (info.image_size, list(info.embedding_shape)) == (HOLLOW.image_size, list(HOLLOW.embedding_shape))
        answer = await served.stub.Segment(request(1))
        assert answer.results[0].masks[0].low_res_mask.size == HOLLOW.low_res_size


async def first_answer_of_another_model(
    served: Served, old: pb.SegmentResponse, fingerprint: str
) -> pb.SegmentResponse:
    """Ask all the time; until the gateway tells another fingerprint, no answer is other than the old model's."""
    while True:
        try:
            answer: pb.SegmentResponse = await served.stub.Segment(request(1), timeout=10)
            info = await served.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
        except grpc.aio.AioRpcError as error:
            retryable = "grpc-status-details-bin" in dict(error.trailing_metadata() or ())
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not retryable:
                raise
            await asyncio.sleep(0.01)
            continue
        if info.fingerprint != fingerprint:
            return answer
        np.testing.assert_allclose(logits(answer), logits(old), atol=0.01)


async def hold(triton: TritonServer, served: Served) -> "asyncio.Future[Refusal]":
    """A request that the decoder has begun and does not end."""
    triton.pause_model(DECODER)
    held = asyncio.ensure_future(refusal(served.stub.Segment(request(1), timeout=60)))
    await triton.holds(DECODER)
    return held
