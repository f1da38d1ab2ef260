"""Envoy's and Prometheus' configurations: what they share with the gateway, the client and production."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from samserve.api import IMAGE_ID_METADATA_KEY, RPCS, SERVICE_NAME
from samserve.client.exchange import GENERATION_TIMEOUT_SECONDS
from samserve.gateway.settings import Settings
from stack.configs import ENVOY, envoy_config, prometheus_config
from stack.ports import Ports, PortTaken

PORTS = Ports()


@pytest.fixture(scope="module")
def production() -> Any:
    return yaml.safe_load(ENVOY.read_text())


def connection_manager(config: Any) -> Any:
    (listener,) = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def routes(config: Any) -> Any:
    (host,) = connection_manager(config)["route_config"]["virtual_hosts"]
    return host["routes"]


def endpoints(config: Any) -> list[tuple[str, int]]:
    (cluster,) = config["static_resources"]["clusters"]
    addresses = [
        endpoint["endpoint"]["address"]["socket_address"]
        for endpoint in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ]
    return [(address["address"], address["port_value"]) for address in addresses]


def test_every_route_hashes_the_metadata_that_the_client_sends(production: Any) -> None:
    for route in routes(production):
        assert route["route"]["hash_policy"] == [{"header": {"header_name": IMAGE_ID_METADATA_KEY}}]


def test_envoy_retries_all_calls_but_those_with_streamed_requests(production: Any) -> None:
    streams, rest = routes(production)
    streaming = "|".join(method.name for method in RPCS.values() if method.client_streaming)
    escaped = SERVICE_NAME.replace(".", r"\.")
    assert streams["match"]["safe_regex"]["regex"] == f"/{escaped}/({streaming})"
    assert "retry_policy" not in streams["route"]
    assert rest["route"]["retry_policy"]


def test_envoy_leaves_deadlines_and_silence_to_the_gateway(production: Any) -> None:
    assert {route["route"]["timeout"] for route in routes(production)} == {"0s"}
    idle = float(connection_manager(production)["stream_idle_timeout"].removesuffix("s"))
    assert idle > max(Settings.model_fields["stream_idle_seconds"].default, GENERATION_TIMEOUT_SECONDS)


def test_envoy_asks_for_the_readiness_of_the_service(production: Any) -> None:
    (cluster,) = production["static_resources"]["clusters"]
    (check,) = cluster["health_checks"]
    assert check["grpc_health_check"] == {"service_name": SERVICE_NAME}
    assert [port for _, port in endpoints(production)] == [Settings.model_fields["port"].default]


def test_this_machines_envoy_differs_from_productions_in_addresses_alone(production: Any) -> None:
    here = envoy_config(PORTS)
    assert endpoints(here) == [("127.0.0.1", port) for port in PORTS.gateways]
    for config in (here, production):
        del config["admin"]["address"], config["static_resources"]["listeners"][0]["address"]
        del config["static_resources"]["clusters"][0]["load_assignment"]
    assert here == production


def test_prometheus_reads_every_gateway_triton_and_envoy() -> None:
    config = prometheus_config(PORTS, 2.5)
    assert config["global"]["scrape_interval"] == "2500ms"
    jobs = {
        job["job_name"]: (job["metrics_path"], job["static_configs"][0]["targets"]) for job in config["scrape_configs"]
    }
    assert jobs == {
        "samserve-gateway": ("/metrics", ["127.0.0.1:9101", "127.0.0.1:9102"]),
        "samserve-triton": ("/metrics", ["127.0.0.1:8002"]),
        "samserve-envoy": ("/stats/prometheus", ["127.0.0.1:9901"]),
    }
    assert Path(config["rule_files"][0]).parent.name == "monitoring"


def test_a_port_named_twice_is_refused_by_its_flags() -> None:
    with pytest.raises(PortTaken, match="--envoy and --redis both name port 50050"):
        Ports(redis=50050).check_free()


def test_gateways_without_ports_for_their_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="--gateway-metrics"):
        Ports(gateways=(50051, 50052, 50053))
