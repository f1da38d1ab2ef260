"""Engines of every kind side by side in one volume."""

from pathlib import Path
from typing import Any

import pytest

from modeling.engine_volume import engine_key, file_repository
from samserve.domain.manifest import ModelManifest


def manifest_of(
    gpu: str | None = "NVIDIA A10G", builder: str = "tensorrt 11.0.0.114", capabilities: Any = "the builder's choice"
) -> ModelManifest:
    engines = {"gpu": gpu, "builder": builder, "compute_capabilities": capabilities}
    return ModelManifest("vit_h", "sha256:" + "5a" * 32, "fp16", 1024, (256, 64, 64), 256, {"engines": engines})


def built(folder: Path, content: str, manifest: ModelManifest | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.plan").write_text(content)
    (manifest or manifest_of()).write(folder)
    return folder


@pytest.mark.parametrize(
    ("manifest", "folders"),
    [
        (manifest_of(), ("NVIDIA-A10G", "tensorrt-11.0.0.114")),
        (
            manifest_of("NVIDIA H100 80GB HBM3 (MIG 1g.10gb)"),
            ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-", "tensorrt-11.0.0.114"),
        ),
        (manifest_of(None, "tensorrt-rtx 1.7.1", [80, 89]), ("sm80-sm89", "tensorrt-rtx-1.7.1")),
        (manifest_of(None, "tensorrt-rtx 1.7.1"), ("portable", "tensorrt-rtx-1.7.1")),
        (manifest_of("../../etc"), ("..-..-etc", "tensorrt-11.0.0.114")),
    ],
)
def test_the_folder_says_gpu_builder_and_model(manifest: ModelManifest, folders: tuple[str, ...]) -> None:
    assert engine_key(manifest).parts == (*folders, "sha256-" + "5a" * 32)


def test_what_is_served_is_not_exchanged(tmp_path: Path) -> None:
    place = file_repository(built(tmp_path / "one", "one"), tmp_path / "volume")
    assert place == tmp_path / "volume" / engine_key(manifest_of())
    assert file_repository(built(tmp_path / "two", "two"), tmp_path / "volume") == place
    assert (place / "model.plan").read_text() == "one"


def test_empty_folders_of_an_early_mount_are_filled(tmp_path: Path) -> None:
    place = tmp_path / "volume" / engine_key(manifest_of())
    (place / "sam_mask_decoder").mkdir(parents=True)
    file_repository(built(tmp_path / "one", "one"), tmp_path / "volume")
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "model.plan"]


def test_another_gpu_gets_another_folder(tmp_path: Path) -> None:
    for name in ("NVIDIA L4", "NVIDIA A10G"):
        file_repository(built(tmp_path / name, name, manifest_of(name)), tmp_path / "volume")
    assert sorted(path.read_text() for path in (tmp_path / "volume").glob("*/*/*/model.plan")) == [
        "NVIDIA A10G",
        "NVIDIA L4",
    ]
