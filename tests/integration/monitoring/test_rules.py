"""Prometheus's own tool on the rules: they are well formed, and alerts fire when they should and only then."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from samserve.api import RPCS

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "k8s" / "monitoring"
RULES = ("recording-rules.yaml", "alert-rules.yaml")


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of a file."""
    return [rule for group in yaml.safe_load((MONITORING / name).read_text())["groups"] for rule in group["rules"]]


ALERTS = rules("alert-rules.yaml")
RECORDED = rules("recording-rules.yaml")
SLOS = [rule["labels"]["slo"] for rule in RECORDED if rule["record"] == "slo:samserve_objective:ratio"]


@pytest.fixture(scope="session")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing; install it: apt-get install prometheus")
    return program


def run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_well_formed(promtool: str) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *RULES, folder=MONITORING)


@pytest.mark.parametrize("name", sorted(path.name for path in (MONITORING / "tests").glob("*.yaml")))
def test_alerts_fire_when_they_should(promtool: str, name: str) -> None:
    run(promtool, "test", "rules", name, folder=MONITORING / "tests")


def test_every_alert_fires_in_a_test() -> None:
    expected = {
        expectation["alertname"]
        for path in (MONITORING / "tests").glob("*.yaml")
        for case in yaml.safe_load(path.read_text())["tests"]
        for expectation in case.get("alert_rule_test", [])
        if expectation.get("exp_alerts")
    }
    assert expected == {alert["alert"] for alert in ALERTS}


def test_every_alert_has_severity_summary_and_value() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert "$value" in alert["annotations"]["description"], alert["alert"]


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    sections = {
        # As GitHub makes an anchor of a heading.
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (Samserve.*)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    }
    linked = set()
    for alert in ALERTS:
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page == "docs/runbook.md"
        linked |= {anchor.replace("{{ $labels.slo }}", slo) for slo in SLOS}
    assert linked == sections


def test_every_section_of_the_runbook_leads_from_users_to_the_end() -> None:
    parts = ["Impact", "Diagnosis", "Likely causes", "Mitigation", "Resolved when"]
    _, *sections = re.split(r"^## (?=Samserve)", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)
    for section in sections:
        assert re.findall(r"^\*\*(.+?)\.\*\*", section, re.MULTILINE) == parts, section.splitlines()[0]


def test_every_panel_that_the_runbook_names_is_on_the_dashboard() -> None:
    text = " ".join((ROOT / "docs" / "runbook.md").read_text().split())
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text))
    titles = {panel["title"] for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]}
    assert named <= titles | {alert["alert"] for alert in ALERTS}


def test_availability_counts_every_unary_call_that_wants_something_of_the_models() -> None:
    unary = {method.name for method in RPCS.values() if not method.client_streaming and not method.server_streaming}
    counted = {
        frozenset(re.findall(r'rpc=~"([\w|]+)"', rule["expr"])[0].split("|"))
        for rule in RECORDED
        if rule.get("labels") == {"slo": "availability"} and "rpc" in rule["expr"]
    }
    assert counted == {frozenset(unary - {"GetServerInfo"})}
