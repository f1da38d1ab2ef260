"""The workflow of GitHub and the hooks of pre-commit run what the Makefile runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", MAKEFILE, re.MULTILINE))


@pytest.fixture
def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    return loaded


@pytest.fixture
def hooks() -> dict[str, dict[str, Any]]:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return {hook["id"]: hook for repository in repositories for hook in repository["hooks"]}


def made(workflow: dict[str, Any]) -> set[str]:
    """Targets that the workflow's jobs make."""
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert all(command.startswith("make ") for command in commands)
    return {target for command in commands for target in command.split()[1:]}


def pythons(workflow: dict[str, Any]) -> set[str]:
    """Versions of Python that the workflow's jobs set up."""
    versions = set()
    for job in workflow["jobs"].values():
        (version,) = [
            s["with"]["python-version"] for s in job["steps"] if s.get("uses", "").startswith("actions/setup-python@")
        ]
        versions |= set(job["strategy"]["matrix"]["python-version"]) if "matrix" in version else {version}
    return versions


def test_the_workflow_runs_targets_of_the_makefile(workflow: dict[str, Any]) -> None:
    assert {"lint", "test", "test-unit"} <= made(workflow) <= TARGETS


def test_the_workflow_covers_the_pythons_of_the_metadata(workflow: dict[str, Any]) -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    prefix = "Programming Language :: Python :: "
    assert pythons(workflow) == {each.removeprefix(prefix) for each in classifiers if each.startswith(f"{prefix}3.")}


def test_the_workflow_only_reads_the_repository(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}


def test_hooks_run_the_programs_of_make_lint(hooks: dict[str, dict[str, Any]]) -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    linted = {line.split("/")[1].removesuffix(" .").removesuffix(" --check") for line in recipe[1].splitlines()}
    entries = {hook["entry"] for hook in hooks.values() if hook["language"] == "system"}
    assert linted == {entry.removeprefix(".venv/bin/").removesuffix(" --force-exclude") for entry in entries}


def test_phony_targets_exist() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) <= TARGETS
