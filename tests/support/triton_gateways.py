"""Gateways on a real Triton."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Refusal, Served, photo, serving
from tests.support.triton_server import TritonServer

MIB = 1 << 20
BY_WIRE = {"triton_scratch_bytes": 0}


@asynccontextmanager
async def on_triton(triton: TritonServer, **settings: Any) -> AsyncIterator[Served]:
    """A gateway on a Triton."""
    defaults = {"memory_cache_bytes": 8 * MIB, "triton_scratch_bytes": 16 * MIB}
    async with serving(backend="triton", triton=triton.address, **{**defaults, **settings}) as served:
        yield served


def request(seed: int, *prompts: pb.Prompt, **fields: Any) -> pb.SegmentRequest:
    defaults: dict[str, Any] = {"include_low_res_masks": True, "multimask_output": True}
    return pb.SegmentRequest(
        image=pb.Image(data=photo(seed)), prompts=prompts or (PNG_CLICK,), **{**defaults, **fields}
    )


def logits(response: pb.SegmentResponse) -> np.ndarray[Any, Any]:
    return np.stack(
        [
            np.frombuffer(mask.low_res_mask.data, "<f2").astype(np.float32)
            for result in response.results
            for mask in result.masks
        ]
    )


async def transport(served: Served) -> str:
    info: pb.GetServerInfoResponse = await served.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.backend == "triton"
    return info.transport


FOLLOWS_SECONDS = 20.0
"""Readiness takes some seconds; a busy machine may take more."""
SERVICE = "samserve.v1.SegmentationService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(served: Served, service: str = SERVICE) -> int:
    stub: Any = HealthStub(served.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return int(answer.status)


async def becomes(served: Served, status: int) -> None:
    """Wait for readiness to follow; liveness has to be there all the time."""
    async with asyncio.timeout(FOLLOWS_SECONDS):
        while await health(served) != status:
            assert await health(served, "liveness") == SERVING
            await asyncio.sleep(0.1)


def check_unavailable(refused: Refusal) -> None:
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert refused.retry_after_seconds


async def start(triton: TritonServer, repository: Path | None = None) -> None:
    await asyncio.to_thread(triton.start, repository)
