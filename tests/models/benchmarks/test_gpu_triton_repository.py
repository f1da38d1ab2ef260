"""The model repository whose models are PyTorch programs."""

import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from benchmarks.gpu_triton.repository import Device, write_repository
from modeling.triton_config import MODELS
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest


@pytest.mark.parametrize(
    ("model", "device", "kind", "batches", "side"),
    [
        ("vit_h", "cuda", pb.ModelInstanceGroup.KIND_GPU, {ENCODER: 4, DECODER: 16}, 1024),
        ("tiny", "cpu", pb.ModelInstanceGroup.KIND_CPU, {ENCODER: 1, DECODER: 16}, 448),
    ],
)
def test_configurations_are_those_of_production_on_the_python_backend(
    tmp_path: Path, model: str, device: Device, kind: int, batches: dict[str, int], side: int
) -> None:
    repository = write_repository(tmp_path / "models", model, device)
    for name in MODELS:
        config = text_format.Parse((repository.folder / name / "config.pbtxt").read_text(), pb.ModelConfig())
        assert (config.backend, config.platform, config.default_model_filename) == ("python", "", "")
        assert config.max_batch_size == batches[name]
        assert config.HasField("dynamic_batching")
        assert [group.kind for group in config.instance_group] == [kind]
        assert config.parameters["fingerprint"].string_value == repository.manifest.fingerprint
        assert config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
        assert (repository.folder / name / "1" / "model.py").is_file()
    assert repository.manifest == ModelManifest.read(repository.folder)
    assert repository.manifest.image_size == side
    assert repository.manifest.precision == {"cuda": "fp16", "cpu": "fp32"}[device]


def test_the_settings_give_the_shapes_of_one_row(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models", "vit_h", "cuda")
    settings = {name: json.loads((repository.folder / name / "1" / "settings.json").read_text()) for name in MODELS}
    assert settings[ENCODER]["row"] == [[[3, 1024, 1024], "uint8"], [[2], "int32"]]
    assert settings[DECODER]["row"] == [
        [[256, 64, 64], "float16"],
        [[1, 2, 2], "float32"],
        [[1, 2], "int32"],
        [[1, 256, 256], "float32"],
        [[1], "float32"],
    ]
    assert repository.reports() == {}
