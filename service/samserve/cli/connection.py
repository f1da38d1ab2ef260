"""The gateway that a command calls: a running one, or one started for the command."""

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
    """Connect to the gateway at `host:port`, or start one if it is None.

    Raises:
        CommandFailed: no server was given, and the packages of a gateway are not installed.
        InvalidManifest, ValidationError: no server was given, and a gateway cannot start.
    """
    if server is not None:
        async with AsyncClient(server) as client:
            yield client
        return
    require_server_extra("a gateway for this call (without --server HOST:PORT)")
    # Imported here, because loading the backends takes time and a client of a running gateway does not need them.
    from samserve.gateway.process import gateway
    from samserve.gateway.settings import Settings

    # The environment may be that of a gateway running on this machine, whose ports are taken.
    settings = Settings(host="127.0.0.1", port=0, health_port=None, metrics_port=None, processes=1)
    async with gateway(settings) as own, AsyncClient(own.address) as client:
        yield client
