"""The images: linted, pinned, of one release where they have to be, and without what only building needs."""

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from modeling.triton_config import MODELS
from tests.k8s.manifests import K8S, OVERLAYS, ROOT, render

FOLDER = K8S / "containers"
FILES = tuple(sorted(FOLDER.glob("*.Containerfile")))
OURS = "registry.example.com/samserve/"
INSTALLERS = re.compile(r"\b(pip|apt-get|gcc|make) ")

by_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction and its arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#")))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def final_stage(file: Path) -> list[tuple[str, str]]:
    lines = instructions(file)
    return lines[max(index for index, (name, _) in enumerate(lines) if name == "FROM") :]


@by_file
def test_the_linter_finds_nothing(file: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, "--failure-threshold", "style", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@by_file
def test_base_images_are_pinned_to_a_version(file: Path) -> None:
    bases = [rest.split()[0] for name, rest in instructions(file) if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1, "built with something else than it runs on"
    assert re.search(r":\d+\.\d+[\w.-]*$", bases[0])


@by_file
def test_nothing_is_built_in_the_final_stage(file: Path) -> None:
    assert not [rest for name, rest in final_stage(file) if name == "RUN" and INSTALLERS.search(rest)]


@by_file
def test_it_runs_as_the_user_of_the_pods(file: Path) -> None:
    users = [rest for name, rest in final_stage(file) if name == "USER"]
    security = render("overlays/laptop").workload("gateway").pod["securityContext"]
    assert users == [f"{security['runAsUser']}:{security['runAsGroup']}"]


@by_file
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, rest in instructions(file):
        if name == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in kept


@by_file
def test_it_is_an_image_that_the_manifests_use(file: Path) -> None:
    with (ROOT / "pyproject.toml").open("rb") as project:
        version = tomllib.load(project)["project"]["version"]
    folders = ("engines", *(f"overlays/{overlay}" for overlay in OVERLAYS))
    used = {c["image"] for folder in folders for each in render(folder).workloads() for c in each.containers}
    assert f"{OURS}{file.stem}:{version}" in used
    assert {image for image in used if image.startswith(OURS)} <= {f"{OURS}{each.stem}:{version}" for each in FILES}


def test_engines_are_built_by_the_tensorrt_of_the_triton_that_loads_them() -> None:
    builder = instructions(FOLDER / "engine-builder.Containerfile")[0][1].split()[0]
    triton = render("overlays/production").workload("triton").containers[0]["image"]
    assert (builder.split(":")[0], triton.split(":")[0]) == ("nvcr.io/nvidia/tensorrt", "nvcr.io/nvidia/tritonserver")
    assert builder.split(":")[1] == triton.split(":")[1]


def test_the_models_lie_where_triton_looks_for_them() -> None:
    file = FOLDER / "triton-cpu.Containerfile"
    triton = render("overlays/laptop").workload("triton").containers[0]
    assert ("COPY", "model_repository /models") in final_stage(file)
    assert "--model-repository=/models" in triton["args"]
    assert not [mount for mount in triton["volumeMounts"] if mount["mountPath"].startswith("/models")]
    mounts = render("overlays/single-gpu").workload("gateway").container("triton")["volumeMounts"]  # type: ignore[index]
    assert {m["mountPath"]: m["subPathExpr"] for m in mounts if m["mountPath"].startswith("/models")} == {
        f"/models/{model}": f"$(ENGINES)/{model}" for model in MODELS
    }


def test_versions_in_the_images_are_those_that_the_project_allows() -> None:
    pinned = dict(
        line.split("==") for line in (FOLDER / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    with (ROOT / "pyproject.toml").open("rb") as project:
        project_table = tomllib.load(project)["project"]
    extras = project_table["optional-dependencies"]
    wanted = [*project_table["dependencies"], *extras["server"], *extras["tracing"]]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} - {"samserve"}
    assert names <= set(pinned)
