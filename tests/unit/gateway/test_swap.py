"""A gateway swaps models as its backend gains, loses or replaces them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from samserve.adapters.cache.memory import MemoryEmbeddingCache
from samserve.domain.errors import ModelUnavailable, TextUnavailable
from samserve.domain.manifest import ModelManifest
from samserve.gateway.backends import Models, ModelsState, ModelsUnavailable
from samserve.gateway.settings import default_model_repository
from samserve.gateway.swap import ModelSwapper
from samserve.observability.metrics import Metrics

MANIFEST = ModelManifest.read(default_model_repository())


class Service:
    """Stands for server and builder: keeps what is told to it."""

    address = "127.0.0.1:1"

    def __init__(self) -> None:
        self.told: list[object] = []
        self.more = asyncio.Event()

    def build(self, models: Models) -> Any:
        return models

    def swap(self, servicer: Any) -> None:
        self.told.append(servicer)

    async def set_serving(self, serving: bool) -> None:
        self.told.append(serving)
        self.more.set()

    async def until_told(self, count: int) -> list[object]:
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.more.clear()
                await self.more.wait()
        return self.told


def models(name: str) -> Models:
    metrics = Metrics()
    cache = MemoryEmbeddingCache(1, metrics.caches)
    nothing = cast(Any, None)
    return Models(name, MANIFEST, nothing, nothing, cache, "in_process", TextUnavailable(""))


def swapper(service: Service) -> ModelSwapper:
    return ModelSwapper(cast(Any, service), cast(Any, service), Metrics())


async def states(*given: ModelsState | Exception, closed: list[bool]) -> AsyncGenerator[ModelsState, None]:
    try:
        for state in given:
            if isinstance(state, Exception):
                raise state
            yield state
        await asyncio.Event().wait()
    finally:
        closed.append(True)


async def test_models_are_swapped_in_once_and_again_only_if_they_were_replaced() -> None:
    service, closed, first, second = Service(), list[bool](), models("first"), models("second")
    gone = ModelsUnavailable()
    async with swapper(service).following(states(gone, first, gone, first, second, closed=closed)):
        assert service.told[0] is False
        told = await service.until_told(7)
    assert told == [False, first, True, False, True, second, True]
    assert closed == [True]


async def test_the_first_state_is_in_service_before_the_context_begins() -> None:
    service, first = Service(), models("first")
    async with swapper(service).following(states(first, closed=[])):
        assert service.told == [first, True]


async def test_a_failure_before_the_first_state_is_raised() -> None:
    with pytest.raises(ModelUnavailable, match="not at all"):
        async with swapper(Service()).following(states(ModelUnavailable("not at all", 1.0), closed=[])):
            pass


async def test_a_backend_that_fails_later_takes_the_gateway_out_of_service(caplog: pytest.LogCaptureFixture) -> None:
    service, first = Service(), models("first")
    async with swapper(service).following(states(first, ValueError("a fault"), closed=[])):
        assert await service.until_told(3) == [first, True, False]
    assert "following the backend failed" in caplog.text
