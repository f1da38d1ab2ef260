"""Each broken manifest is reported by the policy for that mistake."""

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import ValidationError

from tests.k8s.custom_resources import validate_custom
from tests.k8s.manifests import Manifest, Rendering, render
from tests.k8s.test_manifests import KUBERNETES, POLICIES

Mistake = Callable[[Rendering], Any]


def container(rendering: Rendering, component: str, name: str | None = None) -> Manifest:
    found = rendering.workload(component).container(name or component)
    assert found
    return found


def variables(rendering: Rendering) -> list[Manifest]:
    found: list[Manifest] = container(rendering, "gateway")["env"]
    return found


def pod(rendering: Rendering, component: str) -> Manifest:
    return rendering.workload(component).pod


def policy_of(rendering: Rendering, name: str) -> Manifest:
    spec: Manifest = rendering.one("NetworkPolicy", name)["spec"]
    return spec


def volume(rendering: Rendering, name: str) -> Manifest:
    (found,) = [each for each in pod(rendering, "gateway")["volumes"] if each["name"] == name]
    assert isinstance(found, dict)
    return found


MISTAKES: list[tuple[str, str, Mistake]] = [
    ("a misspelt setting", "settings_exist_and_are_valid",
     lambda r: variables(r).append({"name": "SAMSERVE_MAX_REQUEST", "value": "8"})),
    ("a setting that is no number", "settings_exist_and_are_valid",
     lambda r: variables(r).append({"name": "SAMSERVE_MAX_REQUESTS", "value": "8Gi"})),
    ("a variable set twice", "settings_exist_and_are_valid",
     lambda r: variables(r).append(dict(variables(r)[0]))),
    ("a gateway on loopback", "settings_exist_and_are_valid",
     lambda r: variables(r).append({"name": "SAMSERVE_HOST", "value": "127.0.0.1"})),
    ("latest", "images_are_pinned", lambda r: container(r, "envoy").update(image="envoyproxy/envoy:latest")),
    ("no tag", "images_are_pinned", lambda r: container(r, "redis").update(image="registry:5000/redis")),
    ("no limit", "resources_are_bounded", lambda r: container(r, "redis")["resources"]["limits"].pop("memory")),
    ("a request above its limit", "resources_are_bounded",
     lambda r: container(r, "redis")["resources"]["requests"].update(cpu="2500m")),
    ("no liveness probe", "probes_ask_what_is_there", lambda r: container(r, "triton").pop("livenessProbe")),
    ("liveness that callers crowd out", "probes_ask_what_is_there",
     lambda r: container(r, "gateway")["livenessProbe"]["grpc"].update(port=50051)),
    ("liveness that depends on Triton", "probes_ask_what_is_there",
     lambda r: container(r, "gateway")["livenessProbe"]["grpc"].update(service="samserve.v1.SegmentationService")),
    ("a misspelt health service", "probes_ask_what_is_there",
     lambda r: container(r, "gateway")["readinessProbe"]["grpc"].update(service="samserve.v1.Segmentation")),
    ("a probe of another port", "probes_ask_what_is_there",
     lambda r: container(r, "triton")["startupProbe"]["grpc"].update(port=8000)),
    ("a writable root", "containers_are_locked_down",
     lambda r: container(r, "gateway")["securityContext"].pop("readOnlyRootFilesystem")),
    ("a capability", "containers_are_locked_down",
     lambda r: container(r, "gateway")["securityContext"]["capabilities"].update(add=["NET_RAW"])),
    ("a container as root", "containers_are_locked_down",
     lambda r: container(r, "redis")["securityContext"].update(runAsUser=0)),
    ("a pod as root", "pods_are_locked_down", lambda r: pod(r, "redis")["securityContext"].update(runAsUser=0)),
    ("a token for the cluster", "pods_are_locked_down",
     lambda r: pod(r, "gateway").pop("automountServiceAccountToken")),
    ("variables of Services", "pods_are_locked_down", lambda r: pod(r, "gateway").pop("enableServiceLinks")),
    ("a path of the node", "pods_are_locked_down",
     lambda r: pod(r, "triton")["volumes"].append({"name": "shm", "hostPath": {"path": "/dev/shm"}})),
    ("a secret in plain text", "secrets_are_referred_to",
     lambda r: variables(r).append({"name": "SAMSERVE_CACHE_SECRET", "value": "secret"})),
    ("a password in a URL", "secrets_are_referred_to",
     lambda r: variables(r).append({"name": "SAMSERVE_REDIS_URL", "value": "redis://:pw@samserve-redis:6379/0"})),
    ("a Secret among the manifests", "secrets_are_referred_to",
     lambda r: r.manifests.append({"kind": "Secret", "metadata": {"name": "samserve"}})),
    ("too little time to end", "grace_times_add_up",
     lambda r: pod(r, "triton").update(terminationGracePeriodSeconds=35)),
    ("more grace than the pod has", "grace_times_add_up",
     lambda r: variables(r).append({"name": "SAMSERVE_STOP_GRACE_SECONDS", "value": "60"})),
    ("a sidecar that has no time left", "grace_times_add_up",
     lambda r: pod(r, "gateway").update(terminationGracePeriodSeconds=40)),
    ("an Envoy that ends while it drains", "envoy_drains_before_it_ends",
     lambda r: container(r, "envoy").update(args=["--drain-time-s", "60"])),
    ("a port that nobody listens on", "ports_are_the_codes",
     lambda r: container(r, "gateway")["ports"][0].update(containerPort=50052)),
    ("another port than the code's", "ports_are_the_codes",
     lambda r: variables(r).append({"name": "SAMSERVE_METRICS_PORT", "value": "9101"})),
    ("too little shared memory", "memory_is_shared_where_triton_is_beside",
     lambda r: volume(r, "shm")["emptyDir"].update(sizeLimit="64Mi")),
    ("shared memory on disk", "memory_is_shared_where_triton_is_beside",
     lambda r: volume(r, "shm")["emptyDir"].pop("medium")),
    ("a Triton that does not allow it", "memory_is_shared_where_triton_is_beside",
     lambda r: container(r, "gateway", "triton")["args"].remove("--allow-client-shm=true")),
    ("a Triton that does not see it", "memory_is_shared_where_triton_is_beside",
     lambda r: container(r, "gateway", "triton").update(volumeMounts=[])),
    ("a Redis larger than its memory", "memory_holds_the_caches",
     lambda r: container(r, "redis")["resources"]["limits"].update(memory="12Gi")),
    ("a mount of nothing", "files_can_be_written", lambda r: pod(r, "triton")["volumes"].pop(0)),
    ("a Deployment of other pods", "selectors_select",
     lambda r: r.workload("gateway").manifest["spec"]["selector"]["matchLabels"].update(version="2")),
    ("a Service of no pods", "selectors_select",
     lambda r: r.one("Service", "samserve-redis")["spec"]["selector"].update(version="2")),
    ("a budget of no pods", "selectors_select",
     lambda r: r.one("PodDisruptionBudget", "samserve-envoy")["spec"]["selector"]["matchLabels"].update(version="2")),
    ("no budget", "selectors_select",
     lambda r: r.manifests.remove(r.one("PodDisruptionBudget", "samserve-gateway"))),
    ("all replicas on one node", "selectors_select", lambda r: pod(r, "gateway").pop("topologySpreadConstraints")),
    ("a Deployment of everybody's pods", "two_selectors_do_not_overlap",
     lambda r: r.workload("gateway").manifest["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component")),
    ("a Service that leads nowhere", "services_lead_to_ports",
     lambda r: r.one("Service", "samserve-triton")["spec"]["ports"][0].update(targetPort="grpc")),
    ("a monitor of no port", "monitors_find_all_metrics_ports",
     lambda r: r.one("PodMonitor", "samserve-gateway")["spec"]["podMetricsEndpoints"][0].update(port="http")),
    ("no monitor", "monitors_find_all_metrics_ports",
     lambda r: r.manifests.remove(r.one("PodMonitor", "samserve-triton"))),
    ("a ConfigMap that is not there", "references_are_there",
     lambda r: container(r, "gateway")["envFrom"][0]["configMapRef"].update(name="samserve-gateway")),
    ("a variable that comes later", "variables_are_known_where_they_are_used", lambda r: variables(r).reverse()),
    ("a folder after no variable", "variables_are_known_where_they_are_used",
     lambda r: container(r, "triton").pop("env")),
    ("an autoscaler of nothing", "autoscalers_have_targets",
     lambda r: r.one("HorizontalPodAutoscaler", "samserve-triton")["spec"]["scaleTargetRef"].update(name="encoder")),
    ("an autoscaler that applies fight with", "autoscalers_have_targets",
     lambda r: r.workload("gateway").manifest["spec"].update(replicas=2)),
    ("a metric that the adapter does not give", "autoscalers_have_targets",
     lambda r: r.one("HorizontalPodAutoscaler", "samserve-gateway")["spec"]["metrics"][0]["pods"]["metric"].update(
         name="requests")),
    ("another namespace", "all_is_in_the_namespace",
     lambda r: r.one("Service", "samserve")["metadata"].update(namespace="default")),
    ("no default deny", "network_lets_through_what_is_used",
     lambda r: r.manifests.remove(r.one("NetworkPolicy", "default-deny"))),
    ("everybody reaches Redis", "network_lets_through_what_is_used",
     lambda r: policy_of(r, "samserve-redis")["ingress"][0]["from"].append(
         {"namespaceSelector": {"matchLabels": {"samserve-client": "true"}}})),
    ("clients past Envoy", "network_lets_through_what_is_used",
     lambda r: policy_of(r, "samserve-gateway")["ingress"][0]["from"].append(
         {"namespaceSelector": {"matchLabels": {"samserve-client": "true"}}})),
    ("a way to Redis that is closed", "network_lets_through_what_is_used",
     lambda r: policy_of(r, "samserve-gateway")["egress"].pop(1)),
    ("a way that is open at one end", "policies_agree_at_both_ends",
     lambda r: policy_of(r, "samserve-triton")["ingress"].pop(0)),
    ("Envoy before another port", "network_lets_through_what_is_used",
     lambda r: policy_of(r, "samserve-envoy")["ingress"][0]["ports"][0].update(port=50051)),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "mistake"), [each[1:] for each in MISTAKES], ids=[each[0] for each in MISTAKES])
def test_a_mistake_is_reported(policy: str, mistake: Mistake) -> None:
    broken = render("overlays/production").altered()
    mistake(broken)
    assert list(POLICIES[policy](broken))


def test_every_policy_reports_some_mistake() -> None:
    assert {policy for _, policy, _ in MISTAKES} == set(POLICIES)


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("Deployment", "samserve-gateway", {"replica": 2}),
        ("Deployment", "samserve-gateway", {"template": {"spec": {}}}),
        ("NetworkPolicy", "samserve-redis", {"ingres": []}),
        ("HorizontalPodAutoscaler", "samserve-triton", {"minReplicas": "two"}),
        ("PodDisruptionBudget", "samserve-envoy", {"maxUnavailable": [1]}),
    ],
)
def test_schemas_find_fields_and_types_that_are_wrong(kind: str, name: str, change: Manifest) -> None:
    manifest = copy.deepcopy(render("overlays/production").one(kind, name))
    manifest["spec"].update(change)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)


def test_an_api_version_that_is_gone_is_found() -> None:
    manifest = copy.deepcopy(render("overlays/production").one("HorizontalPodAutoscaler", "samserve-triton"))
    manifest["apiVersion"] = "autoscaling/v2beta2"
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(
    ("folder", "kind", "change"),
    [
        ("overlays/production", "PodMonitor", {"endpoints": []}),
        ("overlays/production", "PodMonitor", {"podMetricsEndpoints": [{"port": 9100}]}),
        ("overlays/production-keda", "ScaledObject", {"pollingInterval": "15s"}),
        ("overlays/production-keda", "ScaledObject", {"triggers": [{"type": "prometheus", "metadata": {}}]}),
    ],
)
def test_custom_resources_with_mistakes_are_refused(folder: str, kind: str, change: Manifest) -> None:
    manifest = copy.deepcopy(render(folder).of(kind)[0])
    manifest["spec"].update(change)
    with pytest.raises(ValidationError):
        validate_custom(manifest)
