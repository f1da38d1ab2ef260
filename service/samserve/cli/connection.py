"""The gateway that a command asks: a running one, or one of its own for as long as it runs."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samserve.cli.extras import require_server_extra
from samserve.client import AsyncClient


def add_server_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--server HOST:PORT`."""
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="address of a running gateway; default: start one for this command"
    )


@asynccontextmanager
async def connect(server: str | None) -> AsyncIterator[AsyncClient]:
    """A client of the gateway at `host:port`, or of an own one where it is None.

    Raises:
        CommandFailed: no server was named, and the packages of an own one are not installed.
        InvalidManifest, ValidationError: no server was named, and an own one cannot start.
    """
    if server is not None:
        async with AsyncClient(server) as client:
            yield client
        return
    require_server_extra("a gateway for this call (without --server HOST:PORT)")
    # Loading the backends takes a moment, and a client of a running gateway needs none.
    from samserve.gateway.process import gateway
    from samserve.gateway.settings import Settings

    # The variables may be those of a gateway that serves here: its ports are taken.
    settings = Settings(host="127.0.0.1", port=0, health_port=None, metrics_port=None, processes=1)
    async with gateway(settings) as own, AsyncClient(own.address) as client:
        yield client
