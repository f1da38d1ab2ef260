"""Ports of the components, all on loopback."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass, fields

HOST = "127.0.0.1"


class PortTaken(Exception):
    """A port is in use; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """One port for each thing that listens; as many gateways as there are ports for them.

    The defaults are each program's own, but for Redis, Prometheus and the gateways' metrics: Debian's packages of
    Redis, Prometheus and its node exporter start servers on 6379, 9090 and 9100.

    Raises:
        ValueError: there are not as many ports for gateways' metrics as for gateways.
    """

    envoy: int = 50050
    envoy_admin: int = 9901
    gateways: tuple[int, ...] = (50051, 50052)
    gateway_metrics: tuple[int, ...] = (9101, 9102)
    triton: int = 8001
    triton_metrics: int = 8002
    redis: int = 16379
    prometheus: int = 19090

    def __post_init__(self) -> None:
        if len(self.gateways) != len(self.gateway_metrics):
            raise ValueError("give as many --gateway-metrics as --gateways")

    @classmethod
    def free(cls) -> "Ports":
        """Choose ports that are currently free, for two gateways."""
        with ExitStack() as probes:
            sockets = [probes.enter_context(socket.create_server((HOST, 0))) for _ in range(10)]
            first, second, third, fourth, *others = (probe.getsockname()[1] for probe in sockets)
        envoy, envoy_admin, triton, triton_metrics, redis, prometheus = others
        return cls(envoy, envoy_admin, (first, second), (third, fourth), triton, triton_metrics, redis, prometheus)

    def check_free(self) -> None:
        """Check that no port is in use.

        Raises:
            PortTaken: somebody does, or two of them are the same.
        """
        flags: dict[int, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            flag = f"--{field.name.replace('_', '-')}"
            for port in value if isinstance(value, tuple) else (value,):
                if port in flags:
                    raise PortTaken(f"{flags[port]} and {flag} both name port {port}")
                flags[port] = flag
        for port, flag in flags.items():
            if not _is_free(port):
                raise PortTaken(f"port {port} is taken; stop what listens there, or choose another with {flag}")


def address(port: int) -> str:
    """`host:port`."""
    return f"{HOST}:{port}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of the previous run in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
