"""A gateway in a process of its own, on the repository's models."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samserve.client import Client

PHOTO = Path(__file__).parents[2] / "docs" / "photos" / "coffee.jpg"
_START_SECONDS = 120.0


@contextmanager
def gateway_process(log: Path, **environment: str) -> Iterator[str]:
    """Yields `host:port` of a gateway that serves; at the end it must stop with exit code 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "samserve", "serve", "--port", str(port)],
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
        try:
            address = f"127.0.0.1:{port}"
            with Client(address) as client:
                deadline = time.monotonic() + _START_SECONDS
                while not client.healthy():
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            yield address
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def samserve(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "samserve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
