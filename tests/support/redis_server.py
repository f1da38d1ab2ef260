"""A real Redis."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

_START_SECONDS = 20.0
_PORT_ATTEMPTS = 5


class RedisServer:
    """A `redis-server` process of the test's own, that can be made to die and to hang."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.fail("redis-server is missing; install it: apt-get install redis-server", pytrace=False)
        self._binary = binary
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        for _ in range(_PORT_ATTEMPTS):
            self.port = _free_port()
            if self._start():
                return
        pytest.fail(f"redis-server does not start; see {self._log}", pytrace=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """End it at once, also while it hangs. Connections are refused from then on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Make it hang: the kernel goes on accepting connections and bytes, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Make it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        assert self._answers(), f"redis-server does not go on; see {self._log}"

    def restart(self) -> None:
        """Start it anew on the same port, empty."""
        self.kill()
        assert self._start(), f"redis-server does not start again; see {self._log}"

    @property
    def _log(self) -> Path:
        return self._directory / "redis.log"

    def _start(self) -> bool:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "save": "",
            "appendonly": "no",
            "dir": str(self._directory),
            "logfile": str(self._log),
        }
        arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
        self._process = subprocess.Popen([self._binary, *arguments], stdout=subprocess.DEVNULL)
        if self._answers():
            return True
        self.kill()
        return False

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            # An exit means that somebody else took the port; their Redis would answer as well.
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return True
            except OSError:
                pass
            time.sleep(0.02)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
