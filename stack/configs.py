"""Configuration files of Envoy and Prometheus, derived from the production ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stack.ports import HOST, Ports, address

_KUBERNETES = Path(__file__).resolve().parents[1] / "k8s"
ENVOY = _KUBERNETES / "envoy" / "envoy.yaml"
RULES = _KUBERNETES / "monitoring"

GATEWAY_JOB = "samserve-gateway"
TRITON_JOB = "samserve-triton"
ENVOY_JOB = "samserve-envoy"


def envoy_config(ports: Ports) -> dict[str, Any]:
    """The production configuration with the addresses of this machine."""
    config: dict[str, Any] = yaml.safe_load(ENVOY.read_text())
    config["admin"]["address"] = _socket(ports.envoy_admin)
    (listener,) = config["static_resources"]["listeners"]
    listener["address"] = _socket(ports.envoy)
    (cluster,) = config["static_resources"]["clusters"]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [{"endpoint": {"address": _socket(port)}} for port in ports.gateways]
    return config


def targets(ports: Ports) -> Mapping[str, Sequence[tuple[int, str]]]:
    """Port and path of each scrape target, by job."""
    return {
        GATEWAY_JOB: [(port, "/metrics") for port in ports.gateway_metrics],
        TRITON_JOB: [(ports.triton_metrics, "/metrics")],
        ENVOY_JOB: [(ports.envoy_admin, "/stats/prometheus")],
    }


def prometheus_config(ports: Ports, scrape_seconds: float) -> dict[str, Any]:
    """A configuration with the stack's targets and the production rules."""
    interval = f"{round(1000 * scrape_seconds)}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(RULES / "*-rules.yaml")],
        "scrape_configs": [
            {
                "job_name": job,
                "metrics_path": endpoints[0][1],
                "static_configs": [{"targets": [address(port) for port, _ in endpoints]}],
            }
            for job, endpoints in targets(ports).items()
        ],
    }


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}
