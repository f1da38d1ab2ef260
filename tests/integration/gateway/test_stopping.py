"""Shutdown waits for calls and not for connections."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings
from samserve.v1 import segmentation_pb2 as pb
from tests.support.http2_frames import PREFIX_BYTES, Responses, call_headers, last_message, preface
from tests.support.waiting import settled

GRACE_SECONDS = 250.0
"""Far beyond what a stop takes that does not wait for it."""

INFO = "/samserve.v1.SegmentationService/GetServerInfo"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize("sent", [b"", preface()[:10], preface()], ids=["nothing", "half a preface", "a preface"])
async def test_an_idle_connection_does_not_delay_shutdown(sent: bytes) -> None:
    async with asyncio.timeout(GRACE_SECONDS / 2):
        async with gateway(Settings(port=0, stop_grace_seconds=GRACE_SECONDS)) as running:
            _, writer = await asyncio.open_connection(*running.address.split(":"))
            writer.write(sent)
            await writer.drain()
        writer.close()


async def test_health_watchers_are_notified_and_do_not_delay_shutdown() -> None:
    async with asyncio.timeout(GRACE_SECONDS / 2), AsyncExitStack() as stack:
        async with gateway(Settings(port=0, stop_grace_seconds=GRACE_SECONDS)) as running:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(running.address))
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_call_whose_message_arrives_during_shutdown_is_answered() -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(gateway(Settings(port=0, stop_grace_seconds=GRACE_SECONDS)))
        reader, writer = await asyncio.open_connection(*running.address.split(":"))
        # Once a second call is answered, the first is surely known to the gateway.
        writer.write(preface() + call_headers(INFO, 1) + call_headers(HEALTH, 3) + last_message(3, b""))
        responses = Responses()

        async def received(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(GRACE_SECONDS / 2):
                while not condition():
                    some = await reader.read(1 << 16)
                    assert some, "the connection was closed"
                    responses.feed(some)

        await received(lambda: responses.status(3) is not None)
        stop = asyncio.create_task(stack.aclose())
        await received(lambda: responses.is_leaving)
        await settled()
        assert not stop.done()
        writer.write(last_message(1, pb.GetServerInfoRequest().SerializeToString()))
        await received(lambda: responses.status(1) is not None)
        assert responses.status(1) == grpc.StatusCode.OK.value[0]
        info = pb.GetServerInfoResponse.FromString(responses.data[1][PREFIX_BYTES:])
        assert info.model
        async with asyncio.timeout(GRACE_SECONDS / 2):
            await stop
        writer.close()
