"""A scripted gateway, and both clients behind one synchronous interface."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from samserve.client import AsyncClient, Client
from tests.support.scripted_gateway import ScriptedGateway, running_gateway


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with running_gateway() as scripted:
        yield scripted


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
