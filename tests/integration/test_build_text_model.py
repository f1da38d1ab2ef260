"""From a CLIP checkpoint to the models of text prompts, as the command goes it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from onnx import numpy_helper
from transformers import CLIPModel
from tritonclient.grpc import model_config_pb2

from modeling import build_command, clip_build
from modeling.clip_checkpoint import load_clip
from modeling.clip_parity import MAX_ERROR
from modeling.clip_repository import CLIP_GRAPHS, clip_fingerprint
from modeling.repository import engine_path, graph_path
from modeling.runtimes import onnx_runtime
from modeling.tensorrt_builder import TENSORRT_RTX
from modeling.triton_config import main as triton_config
from samserve.adapters.text_tokenizer import ClipTokenizer
from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER_FILE, ClipManifest
from samserve.domain.errors import InvalidPrompt
from samserve.domain.texts import CROPS_PER_RUN, MAX_TEXTS
from tests.support.small_clip import CONTEXT_LENGTH, EMBEDDING_WIDTH, IMAGE_SIZE, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small-clip")


def run(*arguments: str | Path) -> int:
    return build_command.main([str(argument) for argument in arguments])


def test_the_manifest_records_the_build(clip_repository: Path) -> None:
    manifest = ClipManifest.read(clip_repository)
    assert manifest.model == "small-clip"
    assert manifest.fingerprint == clip_fingerprint(clip_repository)
    sizes = (manifest.image_size, manifest.context_length, manifest.embedding_width)
    assert sizes == (IMAGE_SIZE, CONTEXT_LENGTH, EMBEDDING_WIDTH)
    assert 0 <= manifest.provenance["parity"]["image_error"] <= MAX_ERROR


def test_graphs_and_tokenizer_answer_as_transformers_does(clip_repository: Path, checkpoint: Path) -> None:
    """The checkpoint is the one that the repository was built from: same seed."""
    model: Any = CLIPModel.from_pretrained(checkpoint)
    model.eval()
    tokenizer = ClipTokenizer(clip_repository / TOKENIZER_FILE, CONTEXT_LENGTH)
    texts = ["a dog", "A  cup of coffee on the grass", "Käse 🐕"]
    tokens = tokenizer.tokenize(texts)
    assert tokens.shape == (3, CONTEXT_LENGTH)
    assert (tokens == tokenizer.tokenize(texts)).all()
    crops = np.random.default_rng(2).integers(0, 256, (2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    pixel_values = (crops / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    with torch.no_grad():
        # transformers' own normalisation of both, in its similarity without the temperature.
        outputs = model(input_ids=torch.tensor(tokens).long(), pixel_values=torch.tensor(pixel_values).float())
    expected = outputs.logits_per_image / model.logit_scale.exp()
    images, words = (onnx_runtime(graph_path(clip_repository, graph)) for graph in CLIP_GRAPHS)
    found = images(crops)[0] @ words(tokens)[0].T
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    assert np.ptp(found) > 0.01


def test_text_of_too_many_tokens_is_refused_by_its_number(clip_repository: Path) -> None:
    tokenizer = ClipTokenizer(clip_repository / TOKENIZER_FILE, CONTEXT_LENGTH)
    longest = " ".join(["dog"] * (CONTEXT_LENGTH - 2))
    one_more = f"{longest} dog"
    if tokenizer.tokenize(["dog"])[0, 2] == tokenizer.tokenize(["dog"])[0, -1]:
        assert tokenizer.tokenize([longest]).shape == (1, CONTEXT_LENGTH)
    with pytest.raises(InvalidPrompt, match=r"prompts\[1\].text: has \d+ tokens, the limit is 14; shorten the text"):
        tokenizer.tokenize(["a dog", one_more])


def test_triton_is_configured_for_both_flavours(clip_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(clip_repository, repository)
    for plan in repository.glob("*/1/model.onnx"):
        (plan.parent / "model.plan").touch()
    limits = {IMAGE_ENCODER: CROPS_PER_RUN, TEXT_ENCODER: MAX_TEXTS}
    for flavour, runs_by in (("tensorrt", "tensorrt_plan"), ("cpu", "python")):
        assert triton_config([str(repository), "--flavour", flavour]) == 0
        for model in CLIP_GRAPHS:
            text = (repository / model / "config.pbtxt").read_text()
            config: Any = text_format.Parse(text, model_config_pb2.ModelConfig())
            assert runs_by in (config.platform, config.backend)
            assert config.max_batch_size == limits[model]
            assert config.parameters["fingerprint"].string_value == ClipManifest.read(repository).fingerprint
            assert (repository / model / "1" / "model.py").is_file() == (flavour == "cpu")


def test_graphs_compile_into_engines(clip_repository: Path, tmp_path: Path) -> None:
    for graph in CLIP_GRAPHS:
        shutil.copytree(clip_repository / graph, tmp_path / graph)
    clip_build.compile_clip(tmp_path, ClipManifest.read(clip_repository), TENSORRT_RTX)
    assert all(engine_path(tmp_path, graph, TENSORRT_RTX).stat().st_size > 10_000 for graph in CLIP_GRAPHS)


def test_a_checkpoint_other_than_clip_is_refused_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    output = tmp_path / "models"

    def refused(expected: str) -> None:
        assert run("--text-model", folder, "--output", output) == 2
        assert expected in capsys.readouterr().err
        assert not output.exists()

    refused("config.json is missing")
    shutil.copytree(checkpoint, folder)
    (folder / TOKENIZER_FILE).unlink()
    refused("tokenizer.json is missing")
    shutil.copy(checkpoint / TOKENIZER_FILE, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
    refused("not CLIP")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"broken")
    refused("cannot be read")


def test_a_wrong_graph_does_not_pass_the_gate(
    checkpoint: Path, clip_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exporting is replaced by the right graphs, one weight of them upside down."""

    def export(loaded: object, draft: Path) -> None:
        for graph in CLIP_GRAPHS:
            shutil.copytree(clip_repository / graph, draft / graph)
        path = graph_path(draft, TEXT_ENCODER)
        model = onnx.load(path)
        [weight] = [each for each in model.graph.initializer if each.name.endswith("text_projection.weight")]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
        onnx.save(model, path)

    monkeypatch.setattr(clip_build, "_export", export)
    assert load_clip(checkpoint).model.config.projection_dim == EMBEDDING_WIDTH
    assert run("--text-model", checkpoint, "--output", tmp_path / "models") == 2
    assert not (tmp_path / "models" / "clip_manifest.json").exists()
