"""A client of the gateway that the user named, or of one that runs for this call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samserve.client import AsyncClient


@asynccontextmanager
async def connect(server: str | None) -> AsyncIterator[AsyncClient]:
    """A client of `HOST:PORT`; without, of a gateway of its own in this process.

    Raises:
        InvalidManifest, ValidationError: no server was named, and its own cannot start.
    """
    if server is not None:
        async with AsyncClient(server) as client:
            yield client
        return
    # Loading the engine takes a moment, and a client of a running gateway needs none.
    from samserve.app import gateway
    from samserve.settings import Settings

    settings = Settings(host="127.0.0.1", port=0, metrics_port=None)
    async with gateway(settings) as own, AsyncClient(own.address) as client:
        yield client
