"""Text prompts with CLIP on a real Triton: answers as with CLIP in process, and what is said where Triton has none."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER
from samserve.v1 import segmentation_pb2 as pb
from stack.triton_server import TritonInstallation
from tests.support.gateway import refusal, serving
from tests.support.text_requests import SETTINGS, text_request
from tests.support.triton_gateways import BY_WIRE, on_triton
from tests.support.triton_server import TritonServer

REQUEST = text_request("a cup", "a red truck", multimask_output=True)


@pytest.fixture(scope="module")
def triton_with_clip(
    installation: TritonInstallation, clip_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    server = TritonServer(installation, clip_repository, tmp_path_factory.mktemp("triton-clip") / "triton.log")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("transport", [{}, BY_WIRE], ids=["shared_memory", "wire"])
async def test_answers_are_those_of_clip_in_process(
    triton_with_clip: TritonServer, clip_repository: Path, transport: dict[str, int]
) -> None:
    async with serving(model_repository=clip_repository, **SETTINGS) as served:
        expected = await served.stub.Segment(REQUEST)
    async with on_triton(triton_with_clip, model_repository=clip_repository, **SETTINGS, **transport) as served:
        info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
        found = await served.stub.Segment(REQUEST)
    assert info.text_prompts
    for result, wanted in zip(found.results, expected.results, strict=True):
        np.testing.assert_allclose(
            [mask.text_similarity for mask in result.masks],
            [mask.text_similarity for mask in wanted.masks],
            atol=1e-3,
        )
        assert [mask.area for mask in result.masks] == pytest.approx([mask.area for mask in wanted.masks], rel=0.01)
    for model in (IMAGE_ENCODER, TEXT_ENCODER):
        assert triton_with_clip.counted("nv_inference_count", model=model) > 0


async def test_triton_without_clip_is_named_in_the_refusal(triton: TritonServer, clip_repository: Path) -> None:
    async with on_triton(triton, model_repository=clip_repository) as served:
        refused = await refusal(served.stub.Segment(REQUEST))
        info = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "Triton" in refused.message
    assert IMAGE_ENCODER in refused.message
    assert not info.text_prompts
