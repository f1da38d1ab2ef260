"""The gRPC server: services, limits, health, reflection and graceful shutdown."""

import asyncio
import errno
import os

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import Tracer

from samserve.adapters.grpc.interceptor import RequestInterceptor
from samserve.adapters.grpc.servicer import SegmentationServicer
from samserve.api import LIVENESS_SERVICE_NAME, SERVICE_NAME
from samserve.usecases.load.admission import Admission
from samserve.usecases.observers import RequestObserver

_PROBES = 16
_READINESS = ("", SERVICE_NAME)
_MAX_CONNECTION_AGE_SECONDS = 300
_MAX_CONNECTION_AGE_GRACE_SECONDS = 3600
"""Longest time that a stream may outlive its connection's maximum age; new calls use another connection at once."""
_FAREWELL_SECONDS = 1.0
"""Time for a client to acknowledge the end of its connection, which takes a round trip."""


class GrpcServer:
    """Serves `SegmentationService`, `grpc.health.v1` and reflection on one port.

    Health is per service and for "" (the whole server): NOT_SERVING until `set_serving(True)`, and while stopping. The
    health service "liveness" is SERVING whatever becomes of the models, so that nobody restarts a gateway for them.
    Calls that never end fill `max_concurrent_rpcs`, health checks included; those can have a port of their own.

    Args:
        address: `host:port`; port 0 takes a free one.
        health_port: of the health service alone, beside the one above; None for none.
        max_message_bytes: of a request and of an answer.
        max_concurrent_rpcs: what gRPC lets in at all, streams and health checks included; the use cases admit less.
        requests: admission of single images and their prompts: while it is full, those are refused unparsed.
        streams: admission of bidirectional streams.
        idle_seconds: longest wait for a client to take an answer of a stream.
        reuse_port: whether other gateways listen on the same port; else a second server there is a mistake.
    """

    def __init__(
        self,
        *,
        address: str,
        health_port: int | None,
        max_message_bytes: int,
        max_concurrent_rpcs: int,
        observer: RequestObserver,
        tracer: Tracer,
        requests: Admission,
        streams: Admission,
        idle_seconds: float,
        reuse_port: bool,
    ) -> None:
        self._interceptor = RequestInterceptor(
            observer, tracer, requests, streams, idle_seconds=idle_seconds, max_message_bytes=max_message_bytes
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            maximum_concurrent_rpcs=max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", int(reuse_port)),
                # Clients reconnect from time to time, so that new pods behind the load balancer get traffic.
                ("grpc.max_connection_age_ms", 1000 * _MAX_CONNECTION_AGE_SECONDS),
                ("grpc.max_connection_age_grace_ms", 1000 * _MAX_CONNECTION_AGE_GRACE_SECONDS),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        host = address.rpartition(":")[0]
        self.address = f"{host}:{self._server.add_insecure_port(address)}"
        self._health_server = grpc.aio.server(maximum_concurrent_rpcs=_PROBES, options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
        self.health_port: int | None = None
        if health_port is not None:
            try:
                self.health_port = self._health_server.add_insecure_port(f"{host}:{health_port}")
            except RuntimeError as error:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), f"health port {health_port}") from error

    async def start(self) -> None:
        """Start serving, with health NOT_SERVING. Calls get `ModelUnavailable` until there is a servicer."""
        await self._health.set(LIVENESS_SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(False)
        await self._health_server.start()
        await self._server.start()

    def swap(self, servicer: SegmentationServicer) -> None:
        """Replace the servicer for calls that start from now on."""
        self._interceptor.swap(servicer)

    async def set_serving(self, serving: bool) -> None:
        """Set the status of health checks and notify watchers."""
        status = health_pb2.HealthCheckResponse
        for service in _READINESS:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Reject new calls, end streams, give other calls in flight this long to finish, then cancel them."""
        await self._health.enter_graceful_shutdown()
        self._interceptor.drain()
        stop = asyncio.ensure_future(self._server.stop(grace_seconds))
        # Stopping the server alone would also wait for connections of clients that do not answer.
        while not stop.done():
            if calls := self._interceptor.in_flight:
                await asyncio.wait([stop, *calls], return_when=asyncio.FIRST_COMPLETED)
                continue
            await asyncio.wait([stop], timeout=_FAREWELL_SECONDS)
            # By now this includes calls that arrived just before the stop.
            if not self._interceptor.in_flight:
                break
        await asyncio.gather(stop, self._server.stop(None), self._health_server.stop(None))
