"""Rules, dashboards and metrics in the cluster are those of the repository."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from k8s.monitoring import prometheus_rule
from samserve.observability.metrics import Metrics
from tests.k8s.manifests import render

MONITORED = ("overlays/production", "overlays/production-keda", "overlays/single-gpu")

# Of Triton's metrics documentation; tests/integration/triton_server reads some from a real one.
TRITONS = {"nv_inference_pending_request_count", "nv_inference_queue_duration_us", "nv_inference_request_success"}


def queries() -> dict[str, str]:
    """Every query of the autoscaling, by its place, as Prometheus is asked it."""
    (rules,) = [
        yaml.safe_load(each["data"]["config.yaml"])["rules"]
        for each in render("overlays/production").of("ConfigMap")
        if each["metadata"]["name"] == "samserve-prometheus-adapter"
    ]
    found = {f"adapter {rule['name']['as']}": rule["metricsQuery"] for rule in rules}
    for scaled in render("overlays/production-keda").of("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            found[f"keda {scaled['metadata']['name']}"] = trigger["metadata"]["query"]
    filled = {"<<.GroupBy>>": "namespace,pod", "<<.LabelMatchers>>": 'namespace="samserve",pod=~"a|b"'}
    for part, filling in filled.items():
        found = {place: query.replace(part, filling) for place, query in found.items()}
    return found


def test_autoscaling_asks_for_metrics_and_labels_that_are_exported() -> None:
    metrics = Metrics()
    exported = {sample.name: sample.labels for family in metrics.registry.collect() for sample in family.samples}
    for place, query in queries().items():
        names = set(re.findall(r"\b(?:samserve|nv)_\w+", re.sub(r'"[^"]*"', "", query)))
        assert names, place
        for name in names:
            assert name in exported or name in TRITONS, f"{place} asks for {name}"
        if "limit=" in query:
            assert "requests" in {
                sample.labels["limit"]
                for family in metrics.registry.collect()
                for sample in family.samples
                if sample.name == "samserve_in_flight"
            }


def test_autoscaling_asks_in_words_that_prometheus_understands(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing; install it: apt-get install prometheus")
    rules = [{"record": f"autoscaling:query:{index}", "expr": query} for index, query in enumerate(queries().values())]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "autoscaling", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_of_the_operator_are_those_of_the_files() -> None:
    assert prometheus_rule.PATH.read_text() == prometheus_rule.render(), (
        "the rules have changed: python -m k8s.monitoring.prometheus_rule, and commit it"
    )


@pytest.mark.parametrize("overlay", MONITORED)
def test_rules_and_dashboard_are_part_of_the_overlay(overlay: str) -> None:
    folder = prometheus_rule.FOLDER
    groups = render(overlay).one("PrometheusRule", "samserve")["spec"]["groups"]
    wanted = [
        group for name in prometheus_rule.FILES for group in yaml.safe_load((folder / name).read_text())["groups"]
    ]
    assert groups == wanted
    dashboard = render(overlay).one("ConfigMap", "samserve-dashboard")["data"]["samserve.json"]
    assert json.loads(dashboard) == json.loads((folder / "dashboard.json").read_text())


@pytest.mark.parametrize("overlay", MONITORED)
def test_jobs_have_the_names_that_rules_and_dashboard_know(overlay: str) -> None:
    dashboard = (prometheus_rule.FOLDER / "dashboard.json").read_text()
    rules = prometheus_rule.PATH.read_text()
    known = set(re.findall(r'job=~\\*"\(\.\*/\)\?([\w-]+)', dashboard + rules))
    assert known
    # Prometheus Operator names a PodMonitor's job namespace/name.
    assert known <= render(overlay).names("PodMonitor")
