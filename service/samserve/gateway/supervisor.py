"""Supervises several gateway processes on one port: starts them, replaces processes that die, and stops them all."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from samserve.gateway.child_process import ChildProcess, readable
from samserve.gateway.settings import Settings

_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 30.0
_HUNG_SECONDS = 10.0
"""Time after which a process that was told to stop, and whose calls should have ended, is killed."""
_STEADY_SECONDS = 60.0
"""A child that survived this long did not fail at start-up; reset the restart backoff."""

_log = logging.getLogger(__name__)


async def supervise(settings: Settings) -> None:
    """Run `settings.processes` gateways on one port until SIGTERM or SIGINT. Returns once all have ended.

    One that dies is replaced, while the others serve on. They end by themselves if this process is killed.

    Raises:
        RuntimeError: the port is taken.
        Exception: whatever kept one of the first from serving, as `process.serve` raises it.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _held_port(settings.host, settings.port) as port:
        _log.info("%d processes share %s:%d", settings.processes, settings.host, port)
        try:
            async with asyncio.TaskGroup() as group:
                gateways = [
                    group.create_task(_keep(number, settings.of_process(number, port)))
                    for number in range(settings.processes)
                ]
                await stop.wait()
                _log.info("stopping")
                for gateway in gateways:
                    gateway.cancel()
        except ExceptionGroup as failures:
            # The other processes usually fail for the same reason.
            raise failures.exceptions[0] from None


@contextmanager
def _held_port(host: str, port: int) -> Iterator[int]:
    """Reserve a port for gateways that set SO_REUSEPORT, by binding it without listening."""
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family) as alone, socket.socket(family) as held:
        try:
            address = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)[0][4]
            if port:
                # Another server with SO_REUSEPORT could share the port with the gateways, but not with this socket.
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
                alone.close()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                # Without SO_REUSEADDR, so that no other process gets the port before the gateways listen.
                held.bind(address)
            except OSError:
                # Connections of a server that has just ended are still in TIME_WAIT.
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.bind(address)
        except OSError as error:
            raise RuntimeError(f"cannot bind {host}:{port}: {error}") from error
        yield held.getsockname()[1]


async def _keep(number: int, settings: Settings) -> None:
    """Run a gateway, and restart it whenever it ends. Raises the error that keeps the first one from serving."""
    served = False
    wait = _RETRY_SECONDS
    while True:
        started = asyncio.get_running_loop().time()
        end = await _run(number, settings)
        served = served or end.served
        if not served:
            raise end.fault or ChildProcessError(f"a gateway process exited with {end.status} during start-up")
        if asyncio.get_running_loop().time() - started > _STEADY_SECONDS:
            wait = _RETRY_SECONDS
        _log.error(
            "gateway process %d exited with %s; restarting in %g s", number, end.status, wait, exc_info=end.fault
        )
        await asyncio.sleep(wait)
        wait = min(2 * wait, _MAX_RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class _End:
    """How a gateway process ended: exit status or signal, whether it had served, and its error if it reported one."""

    status: str
    served: bool
    fault: Exception | None


async def _run(number: int, settings: Settings) -> _End:
    """Run a gateway process to its end. On cancellation it is told to stop and awaited."""
    ours, its = multiprocessing.Pipe()
    process = ChildProcess(
        f"gateway process {number}",
        # Modules are searched where this process searches them, not in its current folder.
        [sys.executable, "-P", "-m", "samserve.gateway.worker", str(its.fileno())],
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        inherited=[its.fileno()],
        stop_seconds=settings.stop_grace_seconds + _HUNG_SECONDS,
    )
    with ours:
        with its:
            process.start()
        try:
            served, fault = await _told(ours, settings)
            await process.ended()
        finally:
            await process.stopped()
    return _End(process.status, served, fault)


async def _told(process: "Connection[Settings, Exception | None]", settings: Settings) -> tuple[bool, Exception | None]:
    """Send the settings; receive messages until the process ends: None when it serves, and the error that ends it."""
    served, fault = False, None
    try:
        process.send(settings)
        while True:
            await readable(process.fileno())
            fault = process.recv()
            served = served or fault is None
    except (EOFError, ConnectionError):
        return served, fault
