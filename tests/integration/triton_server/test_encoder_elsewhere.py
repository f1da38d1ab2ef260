"""The two models on Tritons of their own: one beside the gateway for prompts, one somewhere else for images."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samserve.domain.manifest import DECODER, ENCODER
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import refusal, serving
from tests.support.triton_gateways import (
    BY_WIRE,
    NOT_SERVING,
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


def part(repository: Path, model: str, folder: Path) -> Path:
    """A repository of one of the models."""
    shutil.copytree(repository / model, folder / model, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def tritons(
    new_triton: Callable[[], TritonServer], repository: Path, tmp_path: Path
) -> tuple[TritonServer, TritonServer]:
    """The encoder's and the decoder's."""
    encoder, decoder = new_triton(), new_triton()
    encoder.start(part(repository, ENCODER, tmp_path / "encoder"))
    decoder.start(part(repository, DECODER, tmp_path / "decoder"))
    return encoder, decoder


@pytest.mark.parametrize("settings", [{}, BY_WIRE], ids=["shared memory", "wire"])
async def test_each_triton_gets_its_models_work_and_warm_prompts_only_the_decoders(
    tritons: tuple[TritonServer, TritonServer], settings: dict[str, Any]
) -> None:
    encoder, decoder = tritons
    async with serving() as embedded, on_triton(decoder, triton_encoder=encoder.address, **settings) as served:
        assert await transport(served) == ("wire" if settings else "shared_memory")
        encoded = encoder.counted("nv_inference_request_success", model=ENCODER)
        decoded = decoder.counted("nv_inference_request_success", model=DECODER)
        for seed in (1, 2, 1, 2, 1):
            expected, answer = [await gateway.stub.Segment(request(seed)) for gateway in (embedded, served)]
            np.testing.assert_allclose(logits(answer), logits(expected), atol=0.05, rtol=0.01)
        assert encoder.counted("nv_inference_request_success", model=ENCODER) - encoded == 2
        assert decoder.counted("nv_inference_request_success", model=DECODER) - decoded == 5


async def test_a_gateway_is_ready_while_both_tritons_are_and_keeps_its_embeddings(
    tritons: tuple[TritonServer, TritonServer],
) -> None:
    encoder, decoder = tritons
    async with on_triton(decoder, triton_encoder=encoder.address) as served:
        await served.stub.Segment(request(1))
        for triton in tritons:
            triton.kill()
            await becomes(served, NOT_SERVING)
            check_unavailable(await refusal(served.stub.Segment(request(1), timeout=10)))
            await start(triton)
            await becomes(served, SERVING)
            answer = await served.stub.Segment(request(1))
            assert answer.embedding_source == pb.EMBEDDING_SOURCE_MEMORY
            assert await transport(served) == "shared_memory"


async def test_several_encoders_are_asked_in_turns(
    tritons: tuple[TritonServer, TritonServer],
    new_triton: Callable[[], TritonServer],
    repository: Path,
    tmp_path: Path,
) -> None:
    encoder, decoder = tritons
    other = new_triton()
    await start(other, part(repository, ENCODER, tmp_path / "second"))
    async with on_triton(decoder, triton_encoder=f"ipv4:{encoder.address},{other.address}") as served:
        before = [each.counted("nv_inference_request_success", model=ENCODER) for each in (encoder, other)]
        for seed in range(12):
            await served.stub.Segment(request(seed))
        after = [each.counted("nv_inference_request_success", model=ENCODER) for each in (encoder, other)]
        runs = [there - then for there, then in zip(after, before, strict=True)]
        assert sum(runs) == 12
        assert min(runs) >= 4


async def test_models_of_two_builds_are_not_served(
    new_triton: Callable[[], TritonServer], repository: Path, other_repository: Path, tmp_path: Path
) -> None:
    encoder, decoder = new_triton(), new_triton()
    await start(encoder, part(other_repository, ENCODER, tmp_path / "encoder"))
    await start(decoder, part(repository, DECODER, tmp_path / "decoder"))
    async with on_triton(decoder, triton_encoder=encoder.address) as served:
        assert await health(served) == NOT_SERVING
        refused = await refusal(served.stub.Segment(request(1), timeout=10))
        check_unavailable(refused)
