"""Manifests of the models and of CLIP: what is written is read, and what cannot be read says how to rebuild it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samserve.domain import clip_manifest, manifest
from samserve.domain.clip_manifest import ClipManifest
from samserve.domain.manifest import InvalidManifest, ModelManifest

KINDS: dict[str, tuple[type[ModelManifest] | type[ClipManifest], str]] = {
    "sam": (ModelManifest, manifest.FILE_NAME),
    "clip": (ClipManifest, clip_manifest.FILE_NAME),
}
SAM = ModelManifest("vit_h", "sha256:" + "a" * 64, "fp16", 1024, (256, 64, 64), 256, {"checkpoint": "sam_vit_h.pth"})
CLIP = ClipManifest("sha256:" + "b" * 64, "fp32", 224, 77, 512, "vit-b-32", {"checkpoint": "clip"})
WRITTEN: dict[str, ModelManifest | ClipManifest] = {"sam": SAM, "clip": CLIP}

each_kind = pytest.mark.parametrize("kind", KINDS)
sizes = st.integers(1, 4096)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.text(min_size=1), sizes, st.tuples(sizes, sizes, sizes), sizes)
def test_a_model_manifest_is_read_as_it_was_written(
    tmp_path: Path, model: str, image_size: int, embedding_shape: tuple[int, int, int], low_res_size: int
) -> None:
    written = ModelManifest(model, SAM.fingerprint, "fp32", image_size, embedding_shape, low_res_size, {"a": [1]})
    written.write(tmp_path)
    assert ModelManifest.read(tmp_path) == written


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.text(min_size=1), sizes, sizes, sizes)
def test_a_clip_manifest_is_read_as_it_was_written(
    tmp_path: Path, model: str, image_size: int, context_length: int, embedding_width: int
) -> None:
    written = ClipManifest(CLIP.fingerprint, "fp32", image_size, context_length, embedding_width, model, {"a": [1]})
    written.write(tmp_path)
    assert ClipManifest.read(tmp_path) == written


def test_an_embedding_of_sam_takes_two_mebibytes() -> None:
    assert SAM.embedding_bytes == 2 << 20


@each_kind
def test_a_missing_manifest_says_how_to_build_it(kind: str, tmp_path: Path) -> None:
    read, name = KINDS[kind][0].read, KINDS[kind][1]
    with pytest.raises(InvalidManifest, match=rf"{name} is missing; build .* with build_engines\.py"):
        read(tmp_path)


def without(field: str) -> Any:
    return lambda content: {key: value for key, value in content.items() if key != field}


@each_kind
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        pytest.param(lambda content: content | {"format": 99}, "unsupported format", id="another format"),
        pytest.param(without("format"), "cannot read", id="no format"),
        pytest.param(without("fingerprint"), "cannot read", id="no fingerprint"),
        pytest.param(lambda content: list(content), "cannot read", id="a list"),
    ],
)
def test_a_manifest_of_another_form_is_refused(kind: str, damage: Any, error: str, tmp_path: Path) -> None:
    manifest_class, name = KINDS[kind]
    WRITTEN[kind].write(tmp_path)
    path = tmp_path / name
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(InvalidManifest, match=rf"{error}.*build_engines\.py"):
        manifest_class.read(tmp_path)


@each_kind
def test_a_manifest_that_is_no_json_is_refused(kind: str, tmp_path: Path) -> None:
    manifest_class, name = KINDS[kind]
    (tmp_path / name).write_text("{")
    with pytest.raises(InvalidManifest, match="cannot read"):
        manifest_class.read(tmp_path)
