"""The gRPC server: services, limits, health, reflection, and a graceful end."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from samserve.adapters.grpc_interceptor import RequestInterceptor
from samserve.adapters.grpc_servicer import SegmentationServicer
from samserve.adapters.grpc_switch import SwitchableHandler
from samserve.admission import Admission
from samserve.calls import Tracer
from samserve.ports import RequestObserver
from samserve.v1 import segmentation_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
LIVENESS = "liveness"
_READINESS = ("", SERVICE)
_MAX_CONNECTION_AGE_SECONDS = 300
_MAX_CONNECTION_AGE_GRACE_SECONDS = 3600
"""Longest life of a stream beyond its connection's age; calls on a connection of that age go elsewhere at once."""


class GrpcServer:
    """Serves `SegmentationService`, `grpc.health.v1` and reflection on one port.

    Health is per service and for "" (the whole server): NOT_SERVING until `set_serving(True)`, and while stopping. The
    health service "liveness" is SERVING whatever becomes of the models, so that nobody restarts a gateway for them.

    Args:
        address: `host:port`; port 0 takes a free one.
        max_message_bytes: of a request and of an answer.
        max_concurrent_rpcs: what gRPC lets in at all, streams and health checks included; the core admits less.
        streams: admission of bidirectional streams.
        idle_seconds: longest wait for a client to take an answer of a stream.
        reuse_port: whether other gateways listen on the same port.
    """

    def __init__(
        self,
        *,
        address: str,
        max_message_bytes: int,
        max_concurrent_rpcs: int,
        observer: RequestObserver,
        tracer: Tracer,
        streams: Admission,
        idle_seconds: float,
        reuse_port: bool,
    ) -> None:
        self._interceptor = RequestInterceptor(SERVICE, observer, tracer, streams, idle_seconds)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            maximum_concurrent_rpcs=max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # By default a second server on the port is a mistake.
                ("grpc.so_reuseport", int(reuse_port)),
                # Clients come back through the load balancer now and then, so that new pods get their share.
                ("grpc.max_connection_age_ms", 1000 * _MAX_CONNECTION_AGE_SECONDS),
                ("grpc.max_connection_age_grace_ms", 1000 * _MAX_CONNECTION_AGE_GRACE_SECONDS),
            ],
        )
        self._calls = SwitchableHandler(SERVICE)
        self._server.add_generic_rpc_handlers((self._calls,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        host = address.rpartition(":")[0]
        self.address = f"{host}:{self._server.add_insecure_port(address)}"

    async def start(self) -> None:
        """Begin to serve, health NOT_SERVING; calls are refused as `ModelUnavailable` until there is a servicer."""
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(False)
        await self._server.start()

    def exchange(self, servicer: SegmentationServicer) -> None:
        """Have this servicer answer the calls that begin from now on."""
        self._calls.exchange(servicer)

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks and watchers."""
        status = health_pb2.HealthCheckResponse
        for service in _READINESS:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, end streams, give other calls in flight so long to end, then cancel them."""
        await self._health.enter_graceful_shutdown()
        self._interceptor.drain()
        await self._server.stop(grace_seconds)
