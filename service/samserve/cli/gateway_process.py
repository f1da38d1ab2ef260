"""A gateway in its own process, for the duration of a `with` statement."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from samserve.cli.errors import CommandFailed
from samserve.client import Client, ServerError, Unavailable

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.1
_LOG_LINES = 20


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
    command = [sys.executable, "-m", "samserve", "serve", "--host", "127.0.0.1", "--port", str(port), *flags]
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        environment = {**os.environ, "SAMSERVE_LOG_FORMAT": "text"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            _await_serving(process, address, started + _START_SECONDS)
            print(f"gateway serving on {address} after {time.monotonic() - started:.1f} s")
            yield address
            process.send_signal(signal.SIGTERM)
            code = process.wait(_STOP_SECONDS)
            if code != 0:
                raise CommandFailed(f"the gateway exited with code {code}, expected 0")
            print("gateway stopped cleanly")
        except subprocess.TimeoutExpired:
            _show(log)
            raise CommandFailed(f"the gateway did not stop within {_STOP_SECONDS:g} s of SIGTERM") from None
        except (CommandFailed, ServerError, Unavailable):
            _show(log)
            raise
        finally:
            process.kill()
            process.wait()


def _await_serving(process: "subprocess.Popen[bytes]", address: str, deadline: float) -> None:
    with Client(address) as client:
        while not client.healthy():
            if process.poll() is not None:
                raise CommandFailed(
                    f"the gateway exited with code {process.returncode} during start-up; see its log above"
                )
            if time.monotonic() > deadline:
                raise CommandFailed(f"the gateway was not ready within {_START_SECONDS:g} s; see its log above")
            time.sleep(_POLL_SECONDS)


def _show(log: IO[str]) -> None:
    log.seek(0)
    sys.stderr.writelines(f"gateway: {line.rstrip()}\n" for line in log.readlines()[-_LOG_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
