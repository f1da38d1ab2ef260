"""Supervises several gateway processes on one port: starts them, replaces processes that die, and stops them all."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from samserve.gateway.process import serve
from samserve.gateway.settings import Settings
from samserve.observability.logs import configure_logging

# Neither gRPC nor threads survive a fork.
_SPAWN = multiprocessing.get_context("spawn")
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
    reader, writer = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_work, args=(settings, writer), name=f"samserve-{number}")
    with reader:
        with writer, _interrupts_blocked():
            process.start()
        try:
            served, fault = await _told(reader)
            await _readable(process.sentinel)
        finally:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.stop_grace_seconds + _HUNG_SECONDS):
                    await _readable(process.sentinel)
            process.kill()
            process.join()
    code = process.exitcode or 0
    status = f"exit status {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
    return _End(status, served, fault)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Children started here ignore SIGINT: Ctrl-C reaches all processes of the terminal, and children wait to be
    told."""
    # The resource tracker unblocks SIGINT when it starts, so it is started before the first gateway process.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


async def _told(reader: "Connection[None, Exception | None]") -> tuple[bool, Exception | None]:
    """Messages of a gateway process until it ends: None when it serves, and the error that ends it."""
    served, fault = False, None
    while True:
        await _readable(reader.fileno())
        try:
            fault = reader.recv()
        except EOFError:
            return served, fault
        served = served or fault is None


async def _readable(file: int) -> None:
    """Wait until there is data to read, or the other side has closed."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(file, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(file)


def _work(settings: Settings, writer: "Connection[Exception | None, None]") -> None:
    """Main function of a gateway process."""
    configure_logging(settings.log_format, settings.log_level)
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    # If the supervisor has ended, nobody receives the message.
    with contextlib.suppress(BrokenPipeError):
        try:
            asyncio.run(serve(settings, partial(writer.send, None)))
        except Exception as error:
            writer.send(_portable(error))
            sys.exit(1)


def _end_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _portable(error: Exception) -> Exception:
    """Make the error picklable, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its class may fail to pickle in any way
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
