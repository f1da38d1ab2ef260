"""Manifests as kustomize renders them, with lookups by kind and name."""

import copy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tools.kubectl import render_command

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir()))

MONITORING = "monitoring"
CLIENTS = "clients"
COMPONENT = "app.kubernetes.io/component"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """Something that makes pods."""

    manifest: Manifest

    @property
    def name(self) -> str:
        return f"{self.manifest['kind']} {self.manifest['metadata']['name']}"

    @property
    def labels(self) -> dict[str, str]:
        """Of its pods."""
        labels: dict[str, str] = self.manifest["spec"]["template"]["metadata"].get("labels", {})
        return labels

    @property
    def pod(self) -> Manifest:
        """The pods' spec."""
        spec: Manifest = self.manifest["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> list[Manifest]:
        """Those that run side by side, sidecars included."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def component(self) -> str:
        return self.labels.get(COMPONENT, "")

    def container(self, name: str) -> Manifest | None:
        """The container of this name, if there is one."""
        return next((container for container in self.containers if container["name"] == name), None)

    def ports(self) -> dict[str, int]:
        """Its pods' ports by name."""
        return {port["name"]: port["containerPort"] for c in self.containers for port in c.get("ports", [])}


class Rendering:
    """All that one overlay brings into a cluster."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def altered(self) -> "Rendering":
        """A copy to break."""
        return Rendering(copy.deepcopy(self.manifests))

    def of(self, *kinds: str) -> list[Manifest]:
        """All manifests of some kinds."""
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        """The manifest of this kind and name, which has to be there."""
        (found,) = [manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == name]
        return found

    def names(self, kind: str) -> set[str]:
        """Of all manifests of a kind."""
        return {manifest["metadata"]["name"] for manifest in self.of(kind)}

    def workloads(self) -> Iterator[Workload]:
        """All that makes pods."""
        for manifest in self.of("Deployment", "StatefulSet", "Job", "DaemonSet"):
            yield Workload(manifest)

    def workload(self, component: str) -> Workload:
        """The one of this component."""
        (found,) = [workload for workload in self.workloads() if workload.component == component]
        return found

    def has(self, component: str) -> bool:
        """Whether anything makes pods of this component."""
        return any(workload.component == component for workload in self.workloads())

    def environment(self, container: Manifest) -> dict[str, str | None]:
        """A container's variables; None where the value is in a Secret or not known before the pod is."""
        variables: dict[str, str | None] = {}
        for source in container.get("envFrom", []):
            variables.update(self.one("ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in container.get("env", []):
            variables[variable["name"]] = variable.get("value")
        return variables


@lru_cache
def render(folder: str) -> Rendering:
    """What kustomize makes of a folder below `k8s/`."""
    command = [*render_command(), str(K8S / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return Rendering([manifest for manifest in yaml.safe_load_all(done.stdout) if manifest])


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels; without any condition it takes all."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def quantity(text: str | int) -> float:
    """The number that a quantity of Kubernetes stands for."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}
    text = str(text)
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)
