"""Policies for single pods. A policy yields a sentence for each violation."""

import itertools
import re
from collections.abc import Iterator

from pydantic import ValidationError

from samserve.api import LIVENESS_SERVICE_NAME, SERVICE_NAME
from samserve.domain.prompts import PROMPTS_PER_DECODE
from samserve.gateway.settings import Settings
from stack.triton_server import GRPC_PORT, METRICS_PORT
from tests.k8s.manifests import Manifest, Rendering, Workload, quantity

PREFIX = "SAMSERVE_"
LOW_RES_SIZE = 256  # SAM's
CLOSING_SECONDS = 5
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def _each(rendering: Rendering) -> Iterator[tuple[str, Workload, Manifest]]:
    for workload in rendering.workloads():
        for container in workload.containers:
            yield f"{workload.name}, container {container['name']}", workload, container


def settings_of(rendering: Rendering, workload: Workload) -> Settings:
    """What a gateway's pod sets, as the gateway reads it; secrets are made up."""
    gateway = workload.container("gateway")
    assert gateway
    variables = rendering.environment(gateway)
    values = {
        name.removeprefix(PREFIX).lower(): "secret" if value is None else value
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }
    return Settings(**values)  # type: ignore[arg-type]


def settings_exist_and_are_valid(rendering: Rendering) -> Iterator[str]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for where, workload, container in _each(rendering):
        names = [variable["name"] for variable in container.get("env", [])]
        if len(names) != len(set(names)):
            yield f"{where}: a variable is there twice"
        for name in rendering.environment(container):
            if name.startswith(PREFIX) and (name not in known or container["name"] != "gateway"):
                yield f"{where}: {name} is no setting"
        if container["name"] == "gateway":
            try:
                settings = settings_of(rendering, workload)
            except ValidationError as error:
                yield f"{where}: {error}"
                continue
            if settings.host != "0.0.0.0":
                yield f"{where}: listens on {settings.host}, where nobody reaches it"
            if not settings.cache_secret.get_secret_value():
                yield f"{where}: the cache has no secret"


def images_are_pinned(rendering: Rendering) -> Iterator[str]:
    for where, _, container in _each(rendering):
        if not re.search(r"(:v?\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})$", container["image"]):
            yield f"{where}: the image {container['image']} is not pinned to a version"


def resources_are_bounded(rendering: Rendering) -> Iterator[str]:
    for where, _, container in _each(rendering):
        resources = container.get("resources", {})
        for kind in ("cpu", "memory"):
            bounds = [resources.get(part, {}).get(kind) for part in ("requests", "limits")]
            if None in bounds:
                yield f"{where}: no request or no limit of {kind}"
            elif quantity(bounds[0]) > quantity(bounds[1]):
                yield f"{where}: requests more {kind} than its limit"


def probes_ask_what_is_there(rendering: Rendering) -> Iterator[str]:
    for where, workload, container in _each(rendering):
        if workload.manifest["kind"] == "Job":
            continue
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for name in PROBES:
            probe = container.get(name)
            if probe is None:
                yield f"{where}: no {name}"
                continue
            for kind in ("grpc", "httpGet", "tcpSocket"):
                port = probe.get(kind, {}).get("port")
                if port is not None and port not in ports and port not in ports.values():
                    yield f"{where}: {name} asks port {port}, which is none of its own"
            service = {"readinessProbe": SERVICE_NAME}.get(name, LIVENESS_SERVICE_NAME)
            if container["name"] == "gateway" and probe.get("grpc", {}).get("service") != service:
                yield f"{where}: {name} has to ask the health service {service}"
            if container["name"] == "gateway" and (probe["grpc"]["port"] == ports["health"]) != (
                service == LIVENESS_SERVICE_NAME
            ):
                yield f"{where}: callers can crowd out {name}, or it does not see that they do"


def containers_are_locked_down(rendering: Rendering) -> Iterator[str]:
    for where, _, container in _each(rendering):
        context = container.get("securityContext", {})
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{where}: its root file system is writable"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{where}: privileges can grow"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{where}: has capabilities"
        if context.get("privileged") or {"runAsUser", "runAsNonRoot"} & context.keys():
            yield f"{where}: says otherwise than its pod who it is"


def pods_are_locked_down(rendering: Rendering) -> Iterator[str]:
    for workload in rendering.workloads():
        pod, where = workload.pod, workload.name
        context = pod.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{where}: may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where}: no seccomp profile"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{where}: is given a token for the cluster"
        # A Service of this name would set SAMSERVE_..._PORT=tcp://...
        if pod.get("enableServiceLinks") is not False:
            yield f"{where}: is given variables of Services"
        if {"hostNetwork", "hostPID", "hostIPC"} & pod.keys() or any("hostPath" in v for v in pod.get("volumes", [])):
            yield f"{where}: reaches for the node"


def secrets_are_referred_to(rendering: Rendering) -> Iterator[str]:
    for manifest in rendering.of("Secret"):
        yield f"the Secret {manifest['metadata']['name']} is part of the manifests"
    for where, _, container in _each(rendering):
        for variable in container.get("env", []):
            name, value = variable["name"], variable.get("value")
            if re.search("PASSWORD|SECRET|TOKEN", name) and "secretKeyRef" not in variable.get("valueFrom", {}):
                yield f"{where}: {name} does not come from a Secret"
            if value and re.search(r"://[^/@]*:(?!\$\()[^/@]*@", value):
                yield f"{where}: {name} has a password in it"
    for manifest in rendering.of("ConfigMap"):
        for name in manifest.get("data", {}):
            if name.startswith(PREFIX) and re.search("SECRET|REDIS_URL", name):
                yield f"{name} is in a ConfigMap"


def grace_times_add_up(rendering: Rendering) -> Iterator[str]:
    for workload in rendering.workloads():
        total = workload.pod.get("terminationGracePeriodSeconds", 30)
        needed = max((_stop_seconds(rendering, workload, each) for each in workload.pod["containers"]), default=0.0)
        # Sidecars are told to end when the others have.
        needed += sum(_stop_seconds(rendering, workload, each) for each in workload.pod.get("initContainers", []))
        if needed + CLOSING_SECONDS > total:
            yield f"{workload.name}: needs {needed:.0f} s to end, and some to close, and has {total}"


def _stop_seconds(rendering: Rendering, workload: Workload, container: Manifest) -> float:
    hook = container.get("lifecycle", {}).get("preStop", {})
    seconds = float(hook.get("sleep", {}).get("seconds", 0))
    for word in hook.get("exec", {}).get("command", []):
        seconds += sum(float(match) for match in re.findall(r"\bsleep (\d+)", word))
    if container["name"] == "gateway":
        seconds += settings_of(rendering, workload).stop_grace_seconds
    seconds += float(argument(container, "--exit-timeout-secs") or 0)
    return seconds


def argument(container: Manifest, name: str) -> str | None:
    """The value of a command-line option, `--name=value` or `--name value`."""
    words = [*container.get("command", []), *container.get("args", [])]
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith(f"{name}="):
            return str(word).partition("=")[2]
        if word == name:
            return str(following)
    return None


def envoy_drains_before_it_ends(rendering: Rendering) -> Iterator[str]:
    if rendering.has("envoy"):
        envoy = rendering.workload("envoy").containers[0]
        drain = float(argument(envoy, "--drain-time-s") or 600)
        hook = " ".join(envoy.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", []))
        slept = [float(seconds) for seconds in re.findall(r"\bsleep (\d+)", hook)]
        if "/drain_listeners?graceful" not in hook or not slept or slept[0] <= drain:
            yield f"Envoy ends before it has drained for {drain} s"


def ports_are_the_codes(rendering: Rendering) -> Iterator[str]:
    for where, workload, container in _each(rendering):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        expected: dict[str, int | None] = {}
        if container["name"] == "gateway":
            settings = settings_of(rendering, workload)
            expected = {"grpc": settings.port, "health": settings.health_port, "metrics": settings.metrics_port}
            if settings.port != Settings.model_fields["port"].default:
                yield f"{where}: another port than the default one"
        elif container["name"] == "triton":
            expected = {"triton": GRPC_PORT, "triton-metrics": METRICS_PORT}
            said = [argument(container, "--grpc-port"), argument(container, "--metrics-port")]
            if said != [str(GRPC_PORT), str(METRICS_PORT)]:
                yield f"{where}: listens on {said}"
        if expected and ports != expected:
            yield f"{where}: has ports {ports}, and its program listens on {expected}"


def memory_is_shared_where_triton_is_beside(rendering: Rendering) -> Iterator[str]:
    if not rendering.has("gateway"):
        return
    workload = rendering.workload("gateway")
    settings, triton = settings_of(rendering, workload), workload.container("triton")
    if triton is None:
        if settings.backend == "triton" and settings.triton_scratch_bytes:
            yield f"{workload.name}: Triton does not see its memory, and SAMSERVE_TRITON_SCRATCH_BYTES is not 0"
        return
    gateway = workload.container("gateway") or {}
    mounted = [_mounts(each).get("/dev/shm") for each in (gateway, triton)]
    volumes = {volume["name"]: volume for volume in workload.pod["volumes"]}
    if None in mounted or mounted[0] != mounted[1]:
        yield f"{workload.name}: gateway and Triton do not share /dev/shm"
        return
    volume = volumes[str(mounted[0])].get("emptyDir", {})
    needed = settings.memory_cache_bytes + settings.triton_scratch_bytes + 4 * PROMPTS_PER_DECODE * LOW_RES_SIZE**2
    if volume.get("medium") != "Memory" or quantity(volume.get("sizeLimit", 0)) < needed:
        yield f"{workload.name}: /dev/shm has to be memory, and {needed} bytes at least"
    if quantity(gateway["resources"]["limits"]["memory"]) < needed + 2**30:
        yield f"{workload.name}: the gateway's memory holds /dev/shm and has not a GiB beside it"
    if argument(triton, "--allow-client-shm") != "true" or not settings.triton_scratch_bytes:
        yield f"{workload.name}: shared memory is not allowed"
    if not settings.triton.startswith("127.0.0.1:"):
        yield f"{workload.name}: asks Triton at {settings.triton} and not the one beside it"


def _mounts(container: Manifest) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}


def memory_holds_the_caches(rendering: Rendering) -> Iterator[str]:
    units = {"mb": 2**20, "gb": 2**30}
    for where, workload, container in _each(rendering):
        limit = quantity(container.get("resources", {}).get("limits", {}).get("memory", 0))
        held = 0.0
        if container["name"] == "gateway":
            held = settings_of(rendering, workload).memory_cache_bytes
        elif size := rendering.environment(container).get("REDIS_MAXMEMORY"):
            held = float(size[:-2]) * units[size[-2:]]
        if held > 0.9 * limit:
            yield f"{where}: its cache of {held:.0f} bytes does not fit into its memory"


def files_can_be_written(rendering: Rendering) -> Iterator[str]:
    for where, workload, container in _each(rendering):
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in workload.manifest["spec"].get("volumeClaimTemplates", [])}
        for name in _mounts(container).values():
            if name not in volumes:
                yield f"{where}: mounts {name}, which is no volume of its pod"
        if container["name"] in ("gateway", "triton", "build") and "/tmp" not in _mounts(container):
            yield f"{where}: has no /tmp to write to"
