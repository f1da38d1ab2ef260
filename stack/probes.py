"""Probes of the components: whether they serve, and their metrics."""

import json
import urllib.request
from typing import Any
from urllib.error import URLError
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis, RedisError

from stack.ports import HOST, address

_TIMEOUT_SECONDS = 5.0

# Loopback must not go through a proxy from the environment.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(port: int, path: str) -> str:
    """Fetch a URL. Raises OSError if the server does not answer."""
    with _http.open(f"http://{address(port)}{path}", timeout=_TIMEOUT_SECONDS) as answer:
        return str(answer.read().decode())


def sample(port: int, name: str, path: str = "/metrics", **labels: str) -> float:
    """Sum a metric's samples with these labels, as the exporter returns them now. Raises OSError."""
    # The parser uses OpenMetrics' names of counters, whether or not the exporter does.
    return sum(
        entry.value
        for family in text_string_to_metric_families(fetch(port, path))
        for entry in family.samples
        if entry.name in (name, f"{name}_total") and labels.items() <= entry.labels.items()
    )


def query(port: int, promql: str) -> dict[str, float]:
    """Query Prometheus now. Returns values by `instance`, or by "" if there is none. Raises OSError."""
    answer: Any = json.loads(fetch(port, f"/api/v1/query?query={quote(promql)}"))
    return {entry["metric"].get("instance", ""): float(entry["value"][1]) for entry in answer["data"]["result"]}


def redis_answers(port: int) -> bool:
    """Return True if Redis answers."""
    with Redis(host=HOST, port=port, socket_timeout=_TIMEOUT_SECONDS) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def grpc_serves(port: int, service: str = "") -> bool:
    """Return True if the gRPC health service reports SERVING; Triton has one too."""
    with grpc.insecure_channel(address(port), options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def envoy_knows(admin_port: int, gateways: int) -> bool:
    """Return True if Envoy reports this many healthy gateways."""
    try:
        healthy = sample(admin_port, "envoy_cluster_membership_healthy", "/stats/prometheus")
    except (URLError, OSError):
        return False
    return healthy == gateways


def prometheus_sees(port: int, targets: int) -> bool:
    """Return True if Prometheus has scraped this many targets."""
    try:
        return query(port, "sum(up)").get("", 0.0) == targets
    except (URLError, OSError):
        return False
