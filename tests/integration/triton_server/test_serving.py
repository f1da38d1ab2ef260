"""Gateways on a real Triton answer as gateways with the models in process do, by shared memory and by wire."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.triton_transport import Meter
from samserve.adapters.triton import shared_memory
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import PROMPTS_PER_DECODE
from samserve.gateway.settings import default_model_repository
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, serving
from tests.support.redis_server import RedisServer
from tests.support.triton_gateways import BY_WIRE, MIB, logits, on_triton, request, transport
from tests.support.triton_server import TritonServer
from tests.support.waiting import eventually

MANIFEST = ModelManifest.read(default_model_repository())


def assorted_prompts(mask: pb.LowResMask) -> list[pb.Prompt]:
    """Prompts of all kinds and lengths."""
    click = pb.Point(x=20, y=15, label=pb.POINT_LABEL_FOREGROUND)
    other = pb.Point(x=40, y=30, label=pb.POINT_LABEL_BACKGROUND)
    return [
        pb.Prompt(points=[click]),
        pb.Prompt(box=pb.Box(x0=5, y0=5, x1=40, y1=40)),
        pb.Prompt(points=[click, other, other], box=pb.Box(x0=5, y0=5, x1=40, y1=40)),
        pb.Prompt(points=[click], mask_input=mask),
        pb.Prompt(points=[click] * 9),
    ]


@pytest.mark.parametrize("settings", [{}, BY_WIRE], ids=["shared memory", "wire"])
async def test_masks_equal_those_of_onnxruntime(triton: TritonServer, settings: dict[str, Any]) -> None:
    async with serving() as embedded, on_triton(triton, **settings) as served:
        assert await transport(served) == ("wire" if settings else "shared_memory")
        first = await embedded.stub.Segment(request(1))
        prompts = assorted_prompts(first.results[0].masks[0].low_res_mask)
        for message in (request(1), request(1, *prompts), request(2, *prompts[::-1])):
            expected, answer = [await gateway.stub.Segment(message) for gateway in (embedded, served)]
            np.testing.assert_allclose(logits(answer), logits(expected), atol=0.05, rtol=0.01)


async def test_embeddings_equal_those_of_onnxruntime(triton: TritonServer) -> None:
    async with serving() as embedded, on_triton(triton) as served:
        message = pb.GetEmbeddingRequest(image=pb.Image(data=photo(3)))
        expected, answer, again = [await gateway.stub.GetEmbedding(message) for gateway in (embedded, served, served)]
        assert again.embedding_source == pb.EMBEDDING_SOURCE_MEMORY
        assert again.embedding == answer.embedding
        assert answer.fingerprint == expected.fingerprint
        one, other = (np.frombuffer(each.embedding, "<f2").astype(np.float32) for each in (expected, answer))
        np.testing.assert_allclose(other, one, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("settings", [{}, BY_WIRE], ids=["shared memory", "wire"])
async def test_embeddings_that_another_gateway_left_in_redis_are_decoded(
    triton: TritonServer, redis_server: RedisServer, settings: dict[str, Any]
) -> None:
    settings = {**settings, "redis_url": redis_server.url, "redis_budget_seconds": 5.0}
    async with on_triton(triton, **settings) as one, on_triton(triton, **settings) as other:
        first = await one.stub.Segment(request(1))
        await eventually(lambda: one.counted("samserve_redis_calls_total", operation="put", outcome="ok") == 1)
        found, remembered = [await other.stub.Segment(request(1)) for _ in range(2)]
        assert found.embedding_source == pb.EMBEDDING_SOURCE_REDIS
        assert remembered.embedding_source == pb.EMBEDDING_SOURCE_MEMORY
        for answer in (found, remembered):
            np.testing.assert_allclose(logits(answer), logits(first), atol=0.01)


async def test_more_images_than_slots_are_served_and_the_latest_remembered(triton: TritonServer) -> None:
    # And what an entry costs beside its embedding.
    cache_bytes = 4 * MANIFEST.embedding_bytes + (16 << 10)
    async with on_triton(triton, memory_cache_bytes=cache_bytes) as served:
        for seed in range(8):
            assert not (await served.stub.Segment(request(seed))).cached
        assert served.counted("samserve_memory_cache_entries") == 4
        assert served.counted("samserve_memory_cache_evictions_total") == 4
        assert [(await served.stub.Segment(request(seed))).cached for seed in (7, 6, 5, 4, 0)] == [True] * 4 + [False]


async def test_requests_beyond_the_shared_memory_go_by_wire(triton: TritonServer) -> None:
    async with on_triton(triton) as roomy, on_triton(triton, triton_scratch_bytes=MIB) as narrow:
        assert await transport(narrow) == "shared_memory"
        prompts = [PNG_CLICK] * (2 * PROMPTS_PER_DECODE)
        # Of four masks for each prompt, in single precision.
        assert PROMPTS_PER_DECODE * 4 * 4 * MANIFEST.low_res_size**2 > MIB
        expected, answer = [await gateway.stub.Segment(request(1, *prompts)) for gateway in (roomy, narrow)]
        np.testing.assert_allclose(logits(answer), logits(expected), atol=1e-3)


async def test_a_warm_prompt_carries_no_tensor(triton: TritonServer) -> None:
    meter = Meter()
    async with meter.before(triton.address) as address:
        defaults = {"memory_cache_bytes": 8 * MIB, "triton_scratch_bytes": 16 * MIB}
        async with serving(backend="triton", triton=address, **defaults) as served:
            await served.stub.Segment(request(1))
            before = meter.nbytes
            for _ in range(20):
                await served.stub.Segment(request(1))
            # Beside the prompts themselves, the gateway asks how Triton is.
            assert (meter.nbytes - before) / 20 < 4096 < MANIFEST.embedding_bytes / 20


async def test_many_at_once_get_their_own_masks(triton: TritonServer) -> None:
    async with on_triton(triton, memory_cache_bytes=5 * MANIFEST.embedding_bytes + (16 << 10)) as served:
        alone = {seed: logits(await served.stub.Segment(request(seed))) for seed in range(6)}
        for _ in range(3):
            answers = await asyncio.gather(*(served.stub.Segment(request(seed)) for seed in range(6)))
            for seed, answer in enumerate(answers):
                np.testing.assert_allclose(logits(answer), alone[seed], atol=0.02)


async def test_tensors_go_by_wire_where_triton_does_not_see_the_memory(
    triton: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    async with on_triton(triton) as served:
        assert await transport(served) == "wire"
        assert (await served.stub.Segment(request(1))).results


async def test_tensors_go_by_wire_where_triton_sees_other_memory_under_the_name(
    triton: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = f"of-another-host-{os.getpid()}"
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    monkeypatch.setattr("secrets.token_hex", lambda count: token)
    other = Path("/dev/shm") / f"{shared_memory.PREFIX}{token}"
    with other.open("wb") as file:
        # As a living gateway's: gateways of other tests would remove it otherwise.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(64 * MIB)
        try:
            async with on_triton(triton) as served:
                assert await transport(served) == "wire"
        finally:
            other.unlink()


async def test_tensors_go_by_wire_where_there_is_no_room(triton: TritonServer) -> None:
    async with on_triton(triton, memory_cache_bytes=1 << 50) as served:
        assert await transport(served) == "wire"
        assert (await served.stub.Segment(request(1))).results


async def test_stopped_gateways_leave_no_memory_behind(triton: TritonServer) -> None:
    async with on_triton(triton) as served:
        await served.stub.Segment(request(1))
        made = mapped_segments()
        assert made
    assert not any(path.exists() for path in made)


def mapped_segments() -> set[Path]:
    """Segments of gateways that this process maps; those of other processes come and go."""
    paths = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/" in line}
    return {path for path in paths if path.name.startswith(shared_memory.PREFIX)}
