"""Triton's configurations: those that are committed are those that the source writes."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from modeling.triton_config import MODELS, Flavour, main, write_configs
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest
from samserve.gateway.settings import default_model_repository

SAM = ModelManifest("vit_h", "sha256:" + "5a" * 32, "fp16", 1024, (256, 64, 64), 256)


def read(repository: Path, model: str) -> pb.ModelConfig:
    config: pb.ModelConfig = text_format.Parse((repository / model / "config.pbtxt").read_text(), pb.ModelConfig())
    return config


def test_the_committed_configurations_are_what_the_source_writes(tmp_path: Path) -> None:
    committed = default_model_repository()
    write_configs(tmp_path, ModelManifest.read(committed), "cpu")
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) == 4
    for path in written:
        assert (committed / path).read_text() == (tmp_path / path).read_text(), (
            f"{path}: run python -m modeling.triton_config"
        )


@pytest.mark.parametrize("flavour", ["cpu", "tensorrt"])
def test_flavours_differ_in_what_runs_the_models_and_not_in_their_tensors(tmp_path: Path, flavour: Flavour) -> None:
    write_configs(tmp_path / "one", SAM, "cpu")
    write_configs(tmp_path / "other", SAM, flavour)
    for model in MODELS:
        one, other = read(tmp_path / "one", model), read(tmp_path / "other", model)
        assert (list(one.input), list(one.output)) == (list(other.input), list(other.output))
        assert one.parameters == other.parameters


def test_switching_to_tensorrt_leaves_nothing_of_the_python_backend(tmp_path: Path) -> None:
    write_configs(tmp_path, SAM, "cpu")
    assert (tmp_path / DECODER / "1" / "model.py").is_file()
    write_configs(tmp_path, SAM, "tensorrt")
    assert not list(tmp_path.rglob("model.py"))
    assert read(tmp_path, DECODER).platform == "tensorrt_plan"


def test_batch_profiles_reach_the_configuration(tmp_path: Path) -> None:
    write_configs(tmp_path, SAM, "tensorrt", encoder_max_batch=2, decoder_max_batch=8)
    assert [read(tmp_path, model).max_batch_size for model in (ENCODER, DECODER)] == [2, 8]
    assert {warmup.batch_size for warmup in read(tmp_path, DECODER).model_warmup} == {1, 8}


def test_warm_up_gives_every_input_a_size(tmp_path: Path) -> None:
    write_configs(tmp_path, SAM, "cpu")
    for model in MODELS:
        config = read(tmp_path, model)
        assert config.model_warmup
        for warmup in config.model_warmup:
            assert set(warmup.inputs) == {tensor.name for tensor in config.input}
            assert all(size > 0 for tensor in warmup.inputs.values() for size in tensor.dims)


def test_a_flavour_whose_graphs_are_missing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SAM.write(tmp_path)
    assert main([str(tmp_path), "--flavour", "tensorrt"]) == 2
    assert "build_engines.py" in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.pbtxt"))
