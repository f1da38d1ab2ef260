"""Detection of the model in a checkpoint file, and errors for other files."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import SamModel

from modeling import checkpoints
from modeling.architectures import empty_model
from modeling.checkpoints import SHARED, InvalidCheckpoint, load_checkpoint
from modeling.meta_layout import to_transformers
from modeling.published import PUBLISHED_SHA256
from modeling.random_weights import random_model
from modeling.repository import file_sha256


@pytest.fixture(scope="module")
def tiny() -> SamModel:
    return random_model("tiny", seed=5)


@pytest.fixture
def weights(tiny: SamModel) -> dict[str, Tensor]:
    """The state dict as it is saved: the shared tensor once."""
    return {key: tensor.clone() for key, tensor in tiny.state_dict().items() if key != SHARED[1]}


def assert_same(model: SamModel, expected: SamModel) -> None:
    actual, wanted = model.state_dict(), expected.state_dict()
    assert actual.keys() == wanted.keys()
    for key in wanted:
        assert torch.equal(actual[key], wanted[key]), key


def test_safetensors(tiny: SamModel, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_file(weights, path)
    checkpoint = load_checkpoint("tiny", path)
    assert_same(checkpoint.model, tiny)
    assert not checkpoint.model.training
    assert (checkpoint.layout, checkpoint.file_name, checkpoint.sha256) == (
        "huggingface",
        "tiny.safetensors",
        file_sha256(path),
    )


@pytest.mark.parametrize("file_name", ["model.safetensors", "pytorch_model.bin"])
def test_a_hugging_face_folder(tiny: SamModel, weights: dict[str, Tensor], tmp_path: Path, file_name: str) -> None:
    if file_name.endswith(".bin"):
        torch.save(weights, tmp_path / file_name)
    else:
        save_file(weights, tmp_path / file_name)
    checkpoint = load_checkpoint("tiny", tmp_path)
    assert_same(checkpoint.model, tiny)
    assert checkpoint.file_name == file_name


def test_half_precision_weights_become_float32(weights: dict[str, Tensor], tmp_path: Path) -> None:
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    save_file(halves, tmp_path / "half.safetensors")
    model = load_checkpoint("tiny", tmp_path / "half.safetensors").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_wrong_model_is_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "tiny.safetensors")
    with pytest.raises(
        InvalidCheckpoint, match="weights of vit_t or tiny, not of vit_b: pass --model vit_t or --model tiny"
    ):
        load_checkpoint("vit_b", tmp_path / "tiny.safetensors")


def test_missing_unknown_and_misshapen_weights_are_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    del weights["mask_decoder.iou_token.weight"]
    weights["text_encoder.weight"] = torch.zeros(3)
    weights["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 17)
    save_file(weights, tmp_path / "odd.safetensors")
    with pytest.raises(InvalidCheckpoint) as refusal:
        load_checkpoint("tiny", tmp_path / "odd.safetensors")
    message = str(refusal.value)
    assert "1 missing (mask_decoder.iou_token.weight)" in message
    assert "1 unknown (text_encoder.weight)" in message
    assert "1 of another shape (prompt_encoder.no_mask_embed.weight (1, 17) instead of (1, 256))" in message


class _RunsACommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save(OrderedDict(weight=_RunsACommand(f"touch {marker}")), tmp_path / "bad.pth")
    with pytest.raises(InvalidCheckpoint, match="could run code"):
        load_checkpoint("vit_b", tmp_path / "bad.pth")
    assert not marker.exists()


@pytest.mark.parametrize("file_name", ["broken.safetensors", "broken.pth", "empty.pth"])
def test_broken_files_are_refused(tmp_path: Path, file_name: str) -> None:
    (tmp_path / file_name).write_bytes(b"" if file_name.startswith("empty") else b"not a checkpoint at all")
    with pytest.raises(InvalidCheckpoint, match=file_name):
        load_checkpoint("vit_b", tmp_path / file_name)


@pytest.mark.parametrize("file_name", PUBLISHED_SHA256)
def test_a_file_that_only_bears_a_published_name_is_refused(
    weights: dict[str, Tensor], tmp_path: Path, file_name: str
) -> None:
    torch.save(weights, tmp_path / file_name)
    with pytest.raises(InvalidCheckpoint, match=f"{PUBLISHED_SHA256[file_name]}; download it again, or rename it"):
        load_checkpoint("tiny", tmp_path / file_name)


def test_a_published_file_is_taken(
    tiny: SamModel, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sam_vit_h_4b8939.pth"
    torch.save(weights, path)
    monkeypatch.setattr(checkpoints, "PUBLISHED_SHA256", {path.name: file_sha256(path)})
    assert_same(load_checkpoint("tiny", path).model, tiny)


def test_a_state_dict_wrapped_into_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, tmp_path / "training.pth")
    with pytest.raises(InvalidCheckpoint, match=r"save model\.state_dict\(\) alone"):
        load_checkpoint("vit_b", tmp_path / "training.pth")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="does not exist"):
        load_checkpoint("vit_b", tmp_path / "missing.pth")
    with pytest.raises(InvalidCheckpoint, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        load_checkpoint("vit_b", tmp_path)


def test_keys_that_meta_does_not_know_stay_as_they_are() -> None:
    tensor = torch.zeros(1)
    assert to_transformers({"image_encoder.blocks.3.norm2.bias": tensor, "unheard.of": tensor}).keys() == {
        "vision_encoder.layers.3.layer_norm2.bias",
        "unheard.of",
    }


def test_mobile_sams_names_for_its_encoder() -> None:
    tensor = torch.zeros(1)
    renamed = {
        "image_encoder.patch_embed.seq.0.c.weight": "vision_encoder.patch_embed.seq.0.c.weight",
        "image_encoder.layers.0.blocks.1.conv2.bn.running_var": "vision_encoder.layers.0.blocks.1.conv2.bn.running_var",
        "image_encoder.layers.1.blocks.0.attn.qkv.weight": "vision_encoder.layers.1.blocks.0.attn.qkv.weight",
        "image_encoder.layers.2.blocks.5.attn.norm.bias": "vision_encoder.layers.2.blocks.5.attn.norm.bias",
        "image_encoder.layers.2.downsample.conv3.bn.bias": "vision_encoder.layers.2.downsample.conv3.bn.bias",
        "image_encoder.neck.0.weight": "vision_encoder.neck.conv1.weight",
        "image_encoder.neck.3.bias": "vision_encoder.neck.layer_norm2.bias",
    }
    classifier = ("image_encoder.norm_head.weight", "image_encoder.head.weight", "image_encoder.head.bias")
    found = to_transformers(dict.fromkeys((*renamed, *classifier), tensor))
    assert list(found) == list(renamed.values())
    assert found.keys() <= empty_model("vit_t").state_dict().keys()
