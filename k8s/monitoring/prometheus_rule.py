"""Prometheus' rule files as the resource that Prometheus Operator reads.

    python -m k8s.monitoring.prometheus_rule    writes k8s/monitoring/prometheus-rule.yaml

kustomize takes files into ConfigMaps as they are, and into no other resource.
"""

from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
PATH = FOLDER / "prometheus-rule.yaml"
FILES = ("recording-rules.yaml", "alert-rules.yaml")

_HEAD = "# Written by k8s/monitoring/prometheus_rule.py; what is changed here is lost.\n"


def render() -> str:
    """What `prometheus-rule.yaml` holds."""
    groups = [group for name in FILES for group in yaml.safe_load((FOLDER / name).read_text())["groups"]]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "samserve", "namespace": "samserve"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(resource, sort_keys=False, width=120)


if __name__ == "__main__":
    PATH.write_text(render())
