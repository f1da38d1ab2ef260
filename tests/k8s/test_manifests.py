"""Every overlay, rendered: valid by Kubernetes' own schemas, and as the project wants its pods."""

import inspect
import re
from collections.abc import Callable, Iterator

import kubernetes_validate
import pytest

from tests.k8s import pod_policies, wiring_policies
from tests.k8s.custom_resources import SCHEMAS, validate_custom
from tests.k8s.manifests import OVERLAYS, ROOT, Rendering, render

KUBERNETES = ("1.34", "1.37")
"""The oldest that has all that is used here as stable, and the newest whose schemas are at hand."""

Policy = Callable[[Rendering], Iterator[str]]
POLICIES: dict[str, Policy] = {
    name: policy
    for module in (pod_policies, wiring_policies)
    for name, policy in inspect.getmembers(module, inspect.isgeneratorfunction)
    if policy.__module__ == module.__name__ and not name.startswith("_") and name != "used_edges"
}
FOLDERS = ("engines", *(f"overlays/{overlay}" for overlay in OVERLAYS))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_are_valid_kubernetes(folder: str, version: str) -> None:
    for manifest in render(folder).manifests:
        if manifest["kind"] not in SCHEMAS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_custom_resources_are_valid(folder: str) -> None:
    for manifest in render(folder).of(*SCHEMAS):
        validate_custom(manifest)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_manifests_keep_to_the_policies(folder: str, policy: str) -> None:
    assert list(POLICIES[policy](render(folder))) == []


def test_the_overlays_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    table = page.partition("| overlay | for | components |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert tuple(sorted(documented)) == OVERLAYS


def test_encoder_and_decoder_are_scaled_apart_in_production() -> None:
    production = render("overlays/production")
    models = {
        component: sorted(
            mount["mountPath"]
            for mount in (production.workload(component).container("triton") or {})["volumeMounts"]
            if mount["mountPath"].startswith("/models")
        )
        for component in ("gateway", "triton")
    }
    assert models == {"gateway": ["/models/sam_mask_decoder"], "triton": ["/models/sam_image_encoder"]}
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in production.of("HorizontalPodAutoscaler")}
    assert scaled == {"samserve-gateway", "samserve-triton"}
