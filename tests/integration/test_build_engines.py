"""The build command from a checkpoint file to a verified model repository."""

import math
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from modeling import build, build_command
from modeling.checkpoints import SHARED, load_checkpoint
from modeling.engine_volume import engine_key
from modeling.probes import probe_images, probe_prompts
from modeling.prompts import Prompt
from modeling.random_weights import random_model
from modeling.reference import ReferenceSam
from modeling.repository import GRAPHS, file_sha256, graph_path
from modeling.tiny import IMAGE_SIZE
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest

GRID = IMAGE_SIZE // 16
BUNDLED_BYTES = 21_000_000

# Exporting and encoding with vit_b takes minutes where the cores are busy with something else.
pytestmark = pytest.mark.timeout(1800)


def run(*arguments: str | Path) -> int:
    return build_command.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    weights = random_model("tiny", seed=11).state_dict()
    save_file({key: tensor for key, tensor in weights.items() if key != SHARED[1]}, path)
    return path


@pytest.fixture(scope="module")
def tiny_repository(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models") / "model_repository"
    assert run("--model", "tiny", "--checkpoint", tiny_checkpoint, "--output", output, "--images", "2") == 0
    return output


def test_the_manifest_records_checkpoint_and_settings(tiny_repository: Path, tiny_checkpoint: Path) -> None:
    manifest = ModelManifest.read(tiny_repository)
    assert (manifest.model, manifest.precision) == ("tiny", "fp32")
    assert (manifest.image_size, manifest.embedding_shape, manifest.low_res_size) == (
        IMAGE_SIZE,
        (256, GRID, GRID),
        4 * GRID,
    )
    assert manifest.provenance["checkpoint"] == "tiny.safetensors"
    assert manifest.provenance["checkpoint_sha256"] == file_sha256(tiny_checkpoint)
    assert manifest.provenance["parity"]["mask_iou_median"] >= 0.999


def test_the_graphs_have_the_promised_tensors(tiny_repository: Path) -> None:
    def tensors(graph: str) -> dict[str, tuple[int, list[str | int]]]:
        model = onnx.load(graph_path(tiny_repository, graph)).graph
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
            )
            for value in (*model.input, *model.output)
        }

    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert tensors(ENCODER) == {
        "image": (onnx.TensorProto.UINT8, ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]),
        "input_size": (onnx.TensorProto.INT32, ["batch", 2]),
        "image_embeddings": (half, ["batch", 256, GRID, GRID]),
    }
    assert tensors(DECODER) == {
        "image_embeddings": (half, ["batch", 256, GRID, GRID]),
        "point_coords": (single, ["batch", "prompts", "tokens", 2]),
        "point_labels": (onnx.TensorProto.INT32, ["batch", "prompts", "tokens"]),
        "mask_input": (single, ["batch", "prompts", 4 * GRID, 4 * GRID]),
        "has_mask_input": (single, ["batch", "prompts"]),
        "low_res_masks": (single, ["batch", "prompts", 4, 4 * GRID, 4 * GRID]),
        "iou_predictions": (single, ["batch", "prompts", 4]),
    }


def test_the_bundled_graphs_are_small_and_hold_no_paths_of_the_build_machine(tiny_repository: Path) -> None:
    contents = [graph_path(tiny_repository, graph).read_bytes() for graph in GRAPHS]
    assert sum(map(len, contents)) <= BUNDLED_BYTES
    for content in contents:
        assert str(Path(__file__).parents[2]).encode() not in content
        assert not re.search(rb"site-packages|\.py\b", content)


def test_graphs_built_from_the_repositorys_own_weights_are_the_same_to_the_byte(
    tiny_repository: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert run("--model", "tiny", "--checkpoint", tiny_repository, "--output", again, "--images", "2") == 0
    assert ModelManifest.read(again).fingerprint == ModelManifest.read(tiny_repository).fingerprint


def test_verify_needs_no_checkpoint_for_the_bundled_model(
    tiny_repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", "tiny", "--output", tiny_repository, "--verify", "--images", "2") == 0
    assert "is what PyTorch computes" in capsys.readouterr().out


def test_verify_detects_replaced_files(
    tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository)
    path = graph_path(repository, ENCODER)
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("norm.bias"))
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 1).tobytes()
    onnx.save(model, path)
    assert run("--model", "tiny", "--output", repository, "--verify") == 2
    assert "its files are not those that its manifest describes" in capsys.readouterr().err


def test_a_repository_stays_as_it_is_when_the_new_graphs_fail_the_gate(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "repository"
    shutil.copytree(tiny_repository, output)
    (output / "notes.txt").write_text("mine")

    # The graphs of one checkpoint offered as those of another.
    export_by_copying(monkeypatch, tiny_repository)
    assert run("--model", "tiny", "--random-weights", "12", "--output", output, "--images", "2") == 2
    assert "the graphs differ from PyTorch: embedding_error" in capsys.readouterr().err
    assert ModelManifest.read(output) == ModelManifest.read(tiny_repository)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repository"]
    assert (output / "notes.txt").read_text() == "mine"


def export_by_copying(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """Exporting takes most of a build's time; where it is not what a test is about, graphs of another build do."""

    def exporting(graph: str) -> Any:
        return lambda model, path, **how: shutil.copy(graph_path(repository, graph), path)

    monkeypatch.setattr(build, "export_encoder", exporting(ENCODER))
    monkeypatch.setattr(build, "export_decoder", exporting(DECODER))


def files_of(repository: Path) -> list[str]:
    return sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())


def test_each_target_writes_only_its_own_files(
    tiny_repository: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_by_copying(monkeypatch, tiny_repository)
    output = tmp_path / "repository"
    arguments = ("--model", "tiny", "--checkpoint", tiny_checkpoint, "--output", output, "--images", "2")
    assert run(*arguments, "--target", "cpu") == 0
    models = (ENCODER, DECODER)
    assert files_of(output) == [
        "manifest.json",
        *(f"{model}/{file}" for model in models for file in ("1/model.onnx", "1/model.py", "config.pbtxt")),
    ]
    fingerprint = ModelManifest.read(output).fingerprint
    assert all(fingerprint in (output / model / "config.pbtxt").read_text() for model in models)
    assert fingerprint == ModelManifest.read(tiny_repository).fingerprint

    (output / ENCODER / "1" / "model.plan").write_text("of an older build")
    assert run(*arguments, "--target", "onnx") == 0
    assert files_of(output) == files_of(tiny_repository)


def test_without_tensorrt_a_build_ends_before_it_begins(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    output = tmp_path / "repository"
    assert run("--model", "tiny", "--checkpoint", tiny_checkpoint, "--output", output, "--target", "tensorrt") == 2
    said = capsys.readouterr().err
    assert "--target tensorrt cannot be built here" in said
    assert "pip install --extra-index-url https://pypi.nvidia.com tensorrt" in said
    assert "exporting" not in said
    assert not output.exists()


@pytest.fixture(scope="module")
def tiny_engines(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model in half precision, compiled by TensorRT-RTX with the default batch profiles."""
    volume = tmp_path_factory.mktemp("models") / "engines"
    arguments = ("--model", "tiny", "--checkpoint", tiny_checkpoint, "--output", volume, "--images", "2", "--keyed")
    assert run(*arguments, "--target", "tensorrt-rtx", "--compute-capability", "80") == 0
    (written,) = volume.iterdir()
    (output,) = written.glob("*/*")
    return output


def test_the_half_precision_graphs_pass_their_gate_and_compile(tiny_engines: Path, tiny_repository: Path) -> None:
    manifest = ModelManifest.read(tiny_engines)
    assert (manifest.precision, manifest.provenance["target"]) == ("fp16", "tensorrt-rtx")
    assert manifest.fingerprint != ModelManifest.read(tiny_repository).fingerprint
    assert manifest.provenance["parity"]["embedding_cosine"] > 0.9999
    engines = manifest.provenance["engines"]
    assert tiny_engines.parts[-3:] == engine_key(manifest).parts
    assert engines["builder"].startswith("tensorrt-rtx 1.")
    assert engines["compute_capabilities"] == [80]
    assert engines["profiles"]["decoder_batch"] == "1:8:16"
    for graph in GRAPHS:
        engine = graph_path(tiny_engines, graph).with_name("model.engine")
        assert engines["files"][graph] == {"sha256": file_sha256(engine), "bytes": engine.stat().st_size}
        # TensorRT's own kernel for fused attention.
        assert b"_gemm_mha_v2" in engine.read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_engines_that_were_not_run_are_not_called_verified(
    tiny_engines: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ModelManifest.read(tiny_engines).provenance["engines"]["parity"] == "not run: there is no GPU here"
    arguments = ("--model", "tiny", "--checkpoint", tiny_checkpoint, "--output", tiny_engines, "--images", "2")
    assert run(*arguments, "--verify") == 0
    assert "its engines: not run: there is no GPU here" in capsys.readouterr().out


def test_verify_detects_a_replaced_engine(
    tiny_engines: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_engines, repository)
    graph_path(repository, DECODER).with_name("model.engine").write_bytes(b"of another build")
    assert run("--model", "tiny", "--checkpoint", tiny_checkpoint, "--output", repository, "--verify") == 2
    assert "model.engine is not the engine that the manifest describes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--prompts", "8:4:2"), "is not in order"),
        (("--decoder-batch", "many"), "is not MIN:OPT:MAX"),
        (("--target", "tensorrt", "--prompts", "1:1:8"), "the gateway sends from 1 prompt of 2 points to 32 of 128"),
        (("--target", "tensorrt", "--compute-capability", "89"), "requires --target tensorrt-rtx"),
        (("--target", "cpu", "--keyed"), "--keyed requires a --target with engines"),
    ],
)
def test_contradictory_arguments_are_refused(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("--model", "tiny", "--random-weights", "1", "--output", tmp_path / "out", *arguments)
    assert complaint in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_one_clear_line(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", "vit_h", "--checkpoint", tiny_checkpoint, "--output", tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("not of vit_h: pass --model vit_t or --model tiny")
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class MetaSam:
    """Meta's own model and the checkpoint that it saves."""

    model: Any
    path: Path


@pytest.fixture(scope="module")
def meta_vit_b(tmp_path_factory: pytest.TempPathFactory) -> MetaSam:
    """Meta's `vit_b`, its weights random and large enough that attention and positions matter."""
    with pytest.MonkeyPatch.context() as patch:
        # Imported by parts of the package that no model needs.
        for name, attributes in {
            "torchvision": (),
            "torchvision.ops": (),
            "torchvision.ops.boxes": ("batched_nms", "box_area"),
            "torchvision.transforms": (),
            "torchvision.transforms.functional": ("resize", "to_pil_image"),
        }.items():
            module = ModuleType(name)
            for attribute in attributes:
                setattr(module, attribute, None)
            patch.setitem(sys.modules, name, module)
        from segment_anything import sam_model_registry

    model = sam_model_registry["vit_b"]()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else parameter + noise / 10)
    path = tmp_path_factory.mktemp("meta") / "sam_vit_b.pth"
    torch.save(model.state_dict(), path)
    return MetaSam(model.eval(), path)


@pytest.fixture(scope="module")
def vit_b_repository(meta_vit_b: MetaSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models") / "vit_b"
    assert run("--model", "vit_b", "--checkpoint", meta_vit_b.path, "--output", output, "--images", "2") == 0
    return output


def test_metas_checkpoint_answers_as_metas_own_model_does(meta_vit_b: MetaSam) -> None:
    loaded = ReferenceSam(load_checkpoint("vit_b", meta_vit_b.path).model)
    probe = probe_images(2, loaded.sizes.image_size)[1]
    height, width = probe.input_size
    with torch.inference_mode():
        pixels = meta_vit_b.model.preprocess(torch.from_numpy(probe.image[:, :height, :width]).float())
        embedding = meta_vit_b.model.image_encoder(pixels[None])
    np.testing.assert_allclose(loaded.embed(*probe), embedding[0].numpy(), atol=1e-3)
    for prompt in probe_prompts(probe.input_size, loaded.sizes.low_res_size):
        expected_masks, expected_scores = _metas_answer(meta_vit_b.model, embedding, prompt)
        masks, scores = loaded.predict(embedding[0].numpy(), prompt)
        assert expected_masks.std() > 1
        np.testing.assert_allclose(masks, expected_masks, atol=1e-4 * np.abs(expected_masks).max())
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)


def _metas_answer(model: Any, embedding: torch.Tensor, prompt: Prompt) -> tuple[Any, Any]:
    """Masks `[4, 256, 256]`, the single-mask output first, and scores `[4]`."""
    with torch.inference_mode():
        sparse, dense = model.prompt_encoder(
            points=(torch.tensor(prompt.points)[None], torch.tensor(prompt.labels)[None]) if prompt.points else None,
            boxes=None if prompt.box is None else torch.tensor(prompt.box)[None],
            masks=None if prompt.mask is None else torch.from_numpy(prompt.mask)[None, None],
        )
        answers = [
            model.mask_decoder(
                image_embeddings=embedding,
                image_pe=model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask_output,
            )
            for multimask_output in (False, True)
        ]
    masks, scores = (torch.cat(parts, dim=1)[0].numpy() for parts in zip(*answers, strict=True))
    return masks, scores


def test_vit_b_goes_from_metas_checkpoint_to_a_repository(vit_b_repository: Path) -> None:
    manifest = ModelManifest.read(vit_b_repository)
    assert (manifest.model, manifest.provenance["checkpoint_layout"]) == ("vit_b", "meta")
    assert (manifest.image_size, manifest.embedding_shape, manifest.low_res_size) == (1024, (256, 64, 64), 256)
    assert manifest.provenance["parity"]["padding_error"] < 1e-5


def test_both_layouts_hold_the_same_vit_b(meta_vit_b: MetaSam, tmp_path: Path) -> None:
    from_meta = load_checkpoint("vit_b", meta_vit_b.path)
    from_meta.model.save_pretrained(tmp_path)
    from_hugging_face = load_checkpoint("vit_b", tmp_path)
    assert (from_meta.layout, from_hugging_face.layout) == ("meta", "huggingface")
    expected, actual = from_meta.model.state_dict(), from_hugging_face.model.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.fixture(scope="module")
def mobile_sam(meta_vit_b: MetaSam, tmp_path_factory: pytest.TempPathFactory) -> MetaSam:
    """A checkpoint as MobileSAM's authors save theirs; its prompt encoder and mask decoder are those of Meta's vit_b.

    TinyViT's classifier lies in it, which MobileSAM builds and never uses.
    """
    weights = {
        key: tensor for key, tensor in meta_vit_b.model.state_dict().items() if not key.startswith("image_encoder.")
    }
    necks = {"neck.conv1.": "neck.0.", "neck.layer_norm1.": "neck.1.", "neck.conv2.": "neck.2."}
    necks["neck.layer_norm2."] = "neck.3."
    for key, tensor in random_model("vit_t", seed=6).vision_encoder.state_dict().items():
        for ours, theirs in necks.items():
            key = key.replace(ours, theirs)
        weights[f"image_encoder.{key}"] = tensor
    assert weights["image_encoder.layers.1.blocks.0.attn.qkv.weight"].shape == (384, 128)
    weights |= {f"image_encoder.norm_head.{name}": torch.zeros(320) for name in ("weight", "bias")}
    weights |= {"image_encoder.head.weight": torch.zeros(1000, 320), "image_encoder.head.bias": torch.zeros(1000)}
    path = tmp_path_factory.mktemp("mobile") / "mobile.pt"
    torch.save(weights, path)
    return MetaSam(meta_vit_b.model, path)


@pytest.mark.parametrize(("name", "side"), [("vit_t", 1024), ("tiny", IMAGE_SIZE)])
def test_mobile_sams_checkpoint_is_read_for_inputs_of_either_size(mobile_sam: MetaSam, name: str, side: int) -> None:
    checkpoint = load_checkpoint(name, mobile_sam.path)
    assert (checkpoint.layout, checkpoint.file_name) == ("meta", "mobile.pt")
    assert ReferenceSam(checkpoint.model).sizes == (side, 256, side // 16, side // 4)
    expected = random_model("vit_t", seed=6).vision_encoder.state_dict()
    actual = checkpoint.model.vision_encoder.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


def test_mobile_sams_decoder_answers_as_metas_own(mobile_sam: MetaSam) -> None:
    loaded = ReferenceSam(load_checkpoint("vit_t", mobile_sam.path).model)
    side, channels, grid, low_res = loaded.sizes
    embedding = torch.randn(1, channels, grid, grid, generator=torch.Generator().manual_seed(5))
    for prompt in probe_prompts((side, side), low_res):
        expected_masks, expected_scores = _metas_answer(mobile_sam.model, embedding, prompt)
        masks, scores = loaded.predict(embedding[0].numpy(), prompt)
        np.testing.assert_allclose(masks, expected_masks, atol=1e-4 * np.abs(expected_masks).max())
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
