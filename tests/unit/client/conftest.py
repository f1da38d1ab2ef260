"""A scripted gateway, and both clients behind one synchronous face."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from samserve.client import AsyncClient, Client
from samserve.v1.segmentation_pb2_grpc import add_SegmentationServiceServicer_to_server

from tests.unit.client.scripted_gateway import ScriptedGateway


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    scripted = ScriptedGateway()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 2 * 1024 * 1024)])
    add_SegmentationServiceServicer_to_server(scripted, server)
    health_pb2_grpc.add_HealthServicer_to_server(scripted.health, server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield scripted
    server.stop(0).wait()


class BlockingAsyncClient:
    """`AsyncClient` with the methods of `Client`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect(args, options))

    async def _connect(self, args: Any, options: Any) -> AsyncClient:
        return AsyncClient(*args, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **options: self._runner.run(method(*args, **options))

    def __enter__(self) -> "BlockingAsyncClient":
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, BlockingAsyncClient], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Any:
    """The class of the client under test."""
    return request.param


@pytest.fixture
def client(connect: Any, gateway: ScriptedGateway) -> Iterator[Any]:
    with connect(gateway.address) as connected:
        yield connected
