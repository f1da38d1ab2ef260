"""The endpoint of metrics: read by HTTP, and gone with its context."""

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from samserve.observability.metrics.scrapes import metrics_endpoint


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("scraped", "a counter", registry=registry).inc(3)
    return registry


def test_metrics_are_served_until_the_context_ends(registry: CollectorRegistry) -> None:
    with (
        metrics_endpoint(registry, "127.0.0.1", 0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page,
    ):
        assert "scraped_total 3.0" in page.read().decode().splitlines()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_a_taken_port_is_refused(registry: CollectorRegistry) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OSError, match="in use"),
        metrics_endpoint(registry, "127.0.0.1", other.getsockname()[1]),
    ):
        pass
