"""Policies for what connects workloads. A policy yields a sentence for each violation."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.k8s.manifests import CLIENTS, COMPONENT, MONITORING, Manifest, Rendering, Workload, selects
from tests.k8s.pod_policies import settings_of

Edge = tuple[str, str, int]
"""Who opens a connection to whom, on which port of theirs."""

REDIS_BUS = 16379
_USED_VARIABLE = re.compile(r"\$\((\w+)\)")
METRICS_PORTS = {"metrics", "triton-metrics", "admin"}


def selectors_select(rendering: Rendering) -> Iterator[str]:
    pods = [workload.labels for workload in rendering.workloads()]

    def nobody(selector: Manifest) -> bool:
        return not any(selects(selector, labels) for labels in pods)

    for workload in rendering.workloads():
        selector = workload.manifest["spec"].get("selector")
        if selector is not None and not selects(selector, workload.labels):
            yield f"{workload.name}: does not select its own pods"
        for spread in workload.pod.get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"], workload.labels):
                yield f"{workload.name}: spreads other pods than its own"
        if workload.manifest["spec"].get("replicas", 2) > 1 and workload.manifest["kind"] != "Job":
            if not workload.pod.get("topologySpreadConstraints"):
                yield f"{workload.name}: several replicas may be on one node"
            budgets = rendering.of("PodDisruptionBudget")
            if not any(selects(budget["spec"]["selector"], workload.labels) for budget in budgets):
                yield f"{workload.name}: no PodDisruptionBudget"
    for manifest in rendering.of("Service"):
        if nobody({"matchLabels": manifest["spec"]["selector"]}):
            yield f"Service {manifest['metadata']['name']}: selects no pod"
    for manifest in rendering.of("PodDisruptionBudget"):
        if nobody(manifest["spec"]["selector"]):
            yield f"PodDisruptionBudget {manifest['metadata']['name']}: selects no pod"
    for manifest in rendering.of("NetworkPolicy"):
        spec = manifest["spec"]
        peers = [peer for rule in spec.get("ingress", []) for peer in rule["from"]]
        peers += [peer for rule in spec.get("egress", []) for peer in rule["to"]]
        inside = [peer["podSelector"] for peer in peers if "namespaceSelector" not in peer]
        if any(nobody(selector) for selector in (spec["podSelector"], *inside)):
            yield f"NetworkPolicy {manifest['metadata']['name']}: speaks of pods that are not there"


def two_selectors_do_not_overlap(rendering: Rendering) -> Iterator[str]:
    for one in rendering.workloads():
        for other in rendering.workloads():
            selector = one.manifest["spec"].get("selector")
            if one is not other and one.name != other.name and selector and selects(selector, other.labels):
                yield f"{one.name}: takes the pods of {other.name} for its own"


def services_lead_to_ports(rendering: Rendering) -> Iterator[str]:
    for manifest in rendering.of("Service"):
        for workload in _selected(rendering, {"matchLabels": manifest["spec"]["selector"]}):
            ports = workload.ports()
            for port in manifest["spec"]["ports"]:
                if ports.get(port["targetPort"]) != port["port"]:
                    yield f"Service {manifest['metadata']['name']}: {port} leads to no port of {workload.name}"
    for manifest in rendering.of("StatefulSet"):
        if manifest["spec"]["serviceName"] not in rendering.names("Service"):
            yield f"StatefulSet {manifest['metadata']['name']}: its Service is not there"


def monitors_find_all_metrics_ports(rendering: Rendering) -> Iterator[str]:
    found: set[tuple[str, str]] = set()
    for manifest in rendering.of("PodMonitor"):
        workloads = list(_selected(rendering, manifest["spec"]["selector"]))
        for endpoint in manifest["spec"]["podMetricsEndpoints"]:
            names = {workload.name for workload in workloads if endpoint["port"] in workload.ports()}
            if not names:
                yield f"PodMonitor {manifest['metadata']['name']}: nobody has a port {endpoint['port']}"
            found |= {(name, endpoint["port"]) for name in names}
    for workload in rendering.workloads():
        for port in workload.ports():
            if rendering.of("PodMonitor") and port in METRICS_PORTS and (workload.name, port) not in found:
                yield f"{workload.name}: no PodMonitor for {port}"


def references_are_there(rendering: Rendering) -> Iterator[str]:
    maps = rendering.names("ConfigMap")
    for workload in rendering.workloads():
        used = [volume["configMap"]["name"] for volume in workload.pod.get("volumes", []) if "configMap" in volume]
        for container in workload.containers:
            used += [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("configMapKeyRef"):
                    used.append(reference["name"])
        for name in used:
            if name not in maps:
                yield f"{workload.name}: the ConfigMap {name} is not there"


def variables_are_known_where_they_are_used(rendering: Rendering) -> Iterator[str]:
    """`$(NAME)` stands for itself if no variable of that name comes before."""
    for workload in rendering.workloads():
        for container in workload.containers:
            where, known = f"{workload.name}, container {container['name']}", set[str]()
            for variable in container.get("env", []):
                for name in _USED_VARIABLE.findall(variable.get("value") or ""):
                    if name not in known:
                        yield f"{where}: {variable['name']} refers to {name}, which is not there before it"
                known.add(variable["name"])
            known |= rendering.environment(container).keys()
            paths = [mount.get("subPathExpr", "") for mount in container.get("volumeMounts", [])]
            for text in (*container.get("args", []), *paths):
                # The shell has a use of its own for these characters.
                if container.get("command") != ["sh", "-c"]:
                    for name in set(_USED_VARIABLE.findall(text)) - known:
                        yield f"{where}: {text} refers to {name}, which is not there"


def autoscalers_have_targets(rendering: Rendering) -> Iterator[str]:
    scaled = [
        *rendering.of("HorizontalPodAutoscaler"),
        *rendering.of("ScaledObject"),
    ]
    for manifest in scaled:
        where, target = f"{manifest['kind']} {manifest['metadata']['name']}", manifest["spec"]["scaleTargetRef"]
        found = [each for each in rendering.of(target["kind"]) if each["metadata"]["name"] == target["name"]]
        if not found:
            yield f"{where}: its target {target['name']} is not there"
        elif "replicas" in found[0]["spec"]:
            yield f"{where}: its target says its number of replicas too, and every apply sets it back"
    asked = {
        metric["pods"]["metric"]["name"]
        for manifest in rendering.of("HorizontalPodAutoscaler")
        for metric in manifest["spec"]["metrics"]
    }
    given = {
        rule["name"]["as"]
        for manifest in rendering.of("ConfigMap")
        if manifest["metadata"]["name"] == "samserve-prometheus-adapter"
        for rule in yaml.safe_load(manifest["data"]["config.yaml"])["rules"]
    }
    if asked != given:
        yield f"the autoscalers ask for {sorted(asked)}, and the adapter gives {sorted(given)}"


def all_is_in_the_namespace(rendering: Rendering) -> Iterator[str]:
    (namespace,) = rendering.of("Namespace")
    for manifest in rendering.manifests:
        inside = manifest["metadata"].get("namespace")
        if manifest is not namespace and inside != namespace["metadata"]["name"]:
            yield f"{manifest['kind']} {manifest['metadata']['name']}: is in namespace {inside}"
    if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not keep pods to the restricted profile"


def network_lets_through_what_is_used(rendering: Rendering) -> Iterator[str]:
    allowed, used = allowed_edges(rendering), set(used_edges(rendering))
    for edge in sorted(allowed - used):
        yield f"NetworkPolicies allow {edge}, which nobody uses"
    for edge in sorted(used - allowed):
        yield f"NetworkPolicies forbid {edge}"
    denials = [each["spec"] for each in rendering.of("NetworkPolicy") if each["metadata"]["name"] == "default-deny"]
    if denials != [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]:
        yield "not everything is denied that is not allowed"
    dns = [each["spec"] for each in rendering.of("NetworkPolicy") if each["metadata"]["name"] == "dns"]
    if [(spec["podSelector"], len(spec["egress"])) for spec in dns] != [({}, 1)]:
        yield "DNS is not allowed to all pods"


def used_edges(rendering: Rendering) -> Iterator[Edge]:
    """The connections that the programs open, from their own settings."""
    if rendering.has("gateway"):
        settings = settings_of(rendering, rendering.workload("gateway"))
        for address in (settings.triton, settings.triton_encoder):
            if address and not address.startswith("127.0.0.1:"):
                yield _edge_to(rendering, "gateway", address)
        redis = urlsplit(settings.redis_url or "")
        yield _edge_to(rendering, "gateway", f"{redis.hostname}:{redis.port}")
        if settings.redis_cluster:
            yield from (("redis", "redis", port) for port in (redis.port or 0, REDIS_BUS))
        front, port = ("gateway", settings.port)
        if rendering.has("envoy"):
            envoy = envoy_config(rendering)
            for upstream in envoy["static_resources"]["clusters"]:
                for group in upstream["load_assignment"]["endpoints"]:
                    for endpoint in group["lb_endpoints"]:
                        where = endpoint["endpoint"]["address"]["socket_address"]
                        yield _edge_to(rendering, "envoy", f"{where['address']}:{where['port_value']}")
            (listener,) = envoy["static_resources"]["listeners"]
            front, port = ("envoy", listener["address"]["socket_address"]["port_value"])
        yield CLIENTS, front, port
    # Of whatever kind the Prometheus is; that PodMonitors ask these ports is another policy's.
    for workload in rendering.workloads():
        for name, number in workload.ports().items():
            if name in METRICS_PORTS:
                yield MONITORING, workload.component, number


def envoy_config(rendering: Rendering) -> Any:
    """What Envoy is started with."""
    (volume,) = rendering.workload("envoy").pod["volumes"]
    return yaml.safe_load(rendering.one("ConfigMap", volume["configMap"]["name"])["data"]["envoy.yaml"])


def allowed_edges(rendering: Rendering) -> set[Edge]:
    """What NetworkPolicies let through at both ends, DNS aside."""
    outgoing, incoming = _one_sided(rendering)
    return {edge for edge in incoming if edge[0] in (CLIENTS, MONITORING)} | (incoming & outgoing)


def policies_agree_at_both_ends(rendering: Rendering) -> Iterator[str]:
    outgoing, incoming = _one_sided(rendering)
    for edge in sorted(outgoing ^ {edge for edge in incoming if edge[0] not in (CLIENTS, MONITORING)}):
        yield f"NetworkPolicies allow {edge} at one end only"


def _one_sided(rendering: Rendering) -> tuple[set[Edge], set[Edge]]:
    components = {workload.component: workload.labels for workload in rendering.workloads()}
    outgoing: set[Edge] = set()
    incoming: set[Edge] = set()
    for manifest in rendering.of("NetworkPolicy"):
        spec = manifest["spec"]
        if manifest["metadata"]["name"] in ("default-deny", "dns"):
            continue
        own = [name for name, labels in components.items() if selects(spec["podSelector"], labels)]
        for direction, peers, edges in (("ingress", "from", incoming), ("egress", "to", outgoing)):
            for rule in spec.get(direction, []):
                for peer in rule[peers]:
                    for name in _peers(peer, components):
                        for port in rule["ports"]:
                            edges |= {
                                (name, me, port["port"]) if peers == "from" else (me, name, port["port"]) for me in own
                            }
    return outgoing, incoming


def _peers(peer: Manifest, components: dict[str, dict[str, str]]) -> list[str]:
    labels = peer.get("namespaceSelector", {}).get("matchLabels")
    if labels == {"kubernetes.io/metadata.name": MONITORING}:
        return [MONITORING]
    if labels == {"samserve-client": "true"}:
        return [CLIENTS]
    assert labels is None, f"who is {labels}?"
    return [name for name, pod in components.items() if selects(peer["podSelector"], pod)]


def _selected(rendering: Rendering, selector: Manifest) -> Iterator[Workload]:
    return (workload for workload in rendering.workloads() if selects(selector, workload.labels))


def _edge_to(rendering: Rendering, component: str, address: str) -> Edge:
    """To the component behind a Service's name and one of its ports."""
    host, _, port = address.rpartition(":")
    service = rendering.one("Service", host)
    assert int(port) in [each["port"] for each in service["spec"]["ports"]], f"{host} has no port {port}"
    return component, service["spec"]["selector"][COMPONENT], int(port)
