"""Swap: replaces the models in service with those that the backend currently has."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from samserve.adapters.grpc.server import GrpcServer
from samserve.gateway.backends import Models, ModelsState
from samserve.gateway.build import ServicerBuilder
from samserve.observability.metrics import Metrics

_log = logging.getLogger(__name__)


class ModelSwapper:
    """Puts the models of a backend into service, and takes them out of service."""

    def __init__(self, server: GrpcServer, builder: ServicerBuilder, metrics: Metrics) -> None:
        self._server = server
        self._builder = builder
        self._metrics = metrics
        self._served: Models | None = None

    @asynccontextmanager
    async def following(self, states: AsyncGenerator[ModelsState, None]) -> AsyncIterator[None]:
        """Wait for the backend's first state, and follow later states for the duration of the context.

        Raises what the backend raises before its first state.
        """
        await self._apply(await anext(states))
        task = asyncio.create_task(self._follow(states))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _follow(self, states: AsyncGenerator[ModelsState, None]) -> None:
        try:
            async with aclosing(states):
                async for state in states:
                    await self._apply(state)
        except Exception:
            # If nothing follows the models, they may disappear unnoticed, so the gateway is taken out of service.
            _log.exception("following the backend failed; restart the gateway")
            await self._set_serving(False)

    async def _apply(self, state: ModelsState) -> None:
        if isinstance(state, Models) and state is not self._served:
            self._server.swap(self._builder.build(state))
            self._served = state
            self._metrics.models.model(state.manifest)
            _log.info("serving %s (%s) on %s", state.manifest.model, state.backend, self._server.address)
        await self._set_serving(isinstance(state, Models))

    async def _set_serving(self, serving: bool) -> None:
        await self._server.set_serving(serving)
        self._metrics.models.ready(serving)
