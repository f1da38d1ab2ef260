"""A gateway in its own process, for the duration of a `with` statement."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from samserve.cli.errors import CommandFailed
from samserve.client import Client, ServerError, Unavailable
from samserve.gateway.child_process import ChildFailed, ChildProcess

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


@contextmanager
def gateway_process(*flags: str) -> Iterator[str]:
    """`samserve serve` on a free loopback port: yields its address once it is healthy, and stops it by SIGTERM.

    Its log is shown on standard error if the gateway fails, and not if it was asked for what cannot be.

    Args:
        flags: of `samserve serve`, besides host and port.

    Raises:
        CommandFailed: it did not start, or did not stop cleanly.
    """
    port = _free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="samserve-") as folder:
        gateway = ChildProcess(
            "the gateway",
            [sys.executable, "-m", "samserve", "serve", "--host", "127.0.0.1", "--port", str(port), *flags],
            log=Path(folder) / "gateway.log",
            serves=partial(_healthy, address),
            stop_seconds=_STOP_SECONDS,
            environment={**os.environ, "SAMSERVE_LOG_FORMAT": "text"},
        )
        started = time.monotonic()
        gateway.start()
        try:
            gateway.await_serving(_START_SECONDS)
            print(f"gateway serving on {address} after {time.monotonic() - started:.1f} s")
            yield address
            gateway.stop()
            if gateway.status != "exit status 0":
                raise CommandFailed(f"the gateway ended with {gateway.status}, expected exit status 0")
            print("gateway stopped cleanly")
        except ChildFailed as failed:
            _show(failed.log)
            raise CommandFailed(f"{failed.reason}; see its log above") from failed
        except (CommandFailed, ServerError, Unavailable):
            _show(gateway.log_tail())
            raise
        finally:
            gateway.stop()


def _healthy(address: str) -> bool:
    with Client(address) as client:
        return client.healthy()


def _show(log: str) -> None:
    sys.stderr.writelines(f"gateway: {line.strip()}\n" for line in log.splitlines())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
