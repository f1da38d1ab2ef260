"""Load models from checkpoints: Meta's `.pth`, Hugging Face's files, and the graphs of a model repository."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import SamModel

from modeling.architectures import empty_model
from modeling.meta_layout import is_meta_layout, to_transformers
from modeling.model_names import MODEL_NAMES
from modeling.published import PUBLISHED_SHA256
from modeling.repository import GRAPHS, file_sha256, graph_files, graph_path

HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")

# One parameter with two names; a file may contain either or both.
SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
# Counted during training and unused afterwards, so that no graph contains it.
TRAINING_COUNTER = "num_batches_tracked"
KEYS_SHOWN = 3


class InvalidCheckpoint(ValueError):
    """The checkpoint cannot be read, or is not of the requested model."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model and where its weights came from.

    Attributes:
        model: float32, on the CPU, in evaluation mode.
        layout: `meta`, `huggingface` or `onnx`.
        file_name: of the file that held the weights, without its folders.
        sha256: of that file's bytes, in hexadecimal.
    """

    model: SamModel
    layout: str
    file_name: str
    sha256: str


def load_checkpoint(name: str, path: Path) -> Checkpoint:
    """Load a model from a file or folder. The layout is detected from its contents.

    Args:
        name: the architecture it has to be, one of `model_names.MODEL_NAMES`.
        path: a `.safetensors` file, a PyTorch file (Meta's `.pth`, `pytorch_model.bin`), a Hugging Face folder that
            holds one, or a model repository whose ONNX graphs carry their weights under their own names.

    Raises:
        InvalidCheckpoint: it is missing, unreadable, of another architecture, lacks weights, or bears the name of a
            published file and is another.
    """
    if not path.exists():
        raise InvalidCheckpoint(f"{path} does not exist")
    if graph_path(path, GRAPHS[0]).is_file():
        weights, layout = _read_graphs(path), "onnx"
        digest = hashlib.sha256("".join(file_sha256(file) for file in _all_graph_files(path)).encode()).hexdigest()
        return Checkpoint(_fill(name, weights, path), layout, path.resolve().name, digest)
    file = _weights_file(path)
    digest = file_sha256(file)
    published = PUBLISHED_SHA256.get(file.name, digest)
    if digest != published:
        raise InvalidCheckpoint(
            f"{file} has the SHA-256 {digest}, and the file that was published under this name has {published}; "
            "download it again, or rename it if its weights are your own"
        )
    weights, layout = _read_file(file), "huggingface"
    if is_meta_layout(weights):
        weights, layout = to_transformers(weights), "meta"
    return Checkpoint(_fill(name, weights, path), layout, file.name, digest)


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    for file_name in HUGGING_FACE_FILES:
        if (path / file_name).is_file():
            return path / file_name
    raise InvalidCheckpoint(f"{path} holds neither {' nor '.join(HUGGING_FACE_FILES)}; name the checkpoint file itself")


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InvalidCheckpoint(
            f"{path} is no PyTorch file of plain weights, and unpickling anything else could run code; "
            f"save its state dict as .safetensors ({reason})"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({error}); download or save it again") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InvalidCheckpoint(f"{path} is not a state dict of tensors; save model.state_dict() alone")
    return dict(content)


def _all_graph_files(repository: Path) -> list[Path]:
    return [file for graph in GRAPHS for file in graph_files(repository, graph)]


def _read_graphs(repository: Path) -> dict[str, Tensor]:
    """Read the initializers of both graphs. Initializers that are not weights have names that the model does not
    know."""
    weights = {}
    for graph in GRAPHS:
        model = onnx.load(graph_path(repository, graph))
        for initializer in model.graph.initializer:
            array = np.array(onnx.numpy_helper.to_array(initializer))
            if "." in initializer.name:
                weights[initializer.name] = torch.from_numpy(array)
    return weights


def _fill(name: str, weights: dict[str, Tensor], path: Path) -> SamModel:
    """Load exactly these weights into the model."""
    model = empty_model(name)
    first, second = SHARED
    for present, absent in ((first, second), (second, first)):
        if present in weights:
            weights.setdefault(absent, weights[present])
    for key, tensor in model.state_dict().items():
        if key.endswith(TRAINING_COUNTER):
            weights.setdefault(key, torch.zeros_like(tensor, device="cpu"))

    differences = _differences(model, weights)
    if differences:
        # MobileSAM's weights fit inputs of any size.
        fitting = [other for other in MODEL_NAMES if not _differences(empty_model(other), weights)]
        if fitting:
            raise InvalidCheckpoint(
                f"{path} holds the weights of {' or '.join(fitting)}, not of {name}: pass "
                + " or ".join(f"--model {other}" for other in fitting)
            )
        raise InvalidCheckpoint(
            f"{path} does not hold a SAM {name}: {'; '.join(differences)}. Expected are Meta's or transformers' "
            f"weights of {', '.join(MODEL_NAMES)}, complete and unchanged in shape"
        )
    floats = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    model.load_state_dict(floats, strict=True, assign=True)
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    return model


def _differences(model: SamModel, weights: Mapping[str, Tensor]) -> list[str]:
    """Describe how these weights differ from the model's."""
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in weights and tuple(weights[key].shape) != shape
    ]
    kinds = {
        "missing": [key for key in expected if key not in weights],
        "unknown": [key for key in weights if key not in expected],
        "of another shape": shapes,
    }
    return [
        f"{len(keys)} {kind} ({', '.join(sorted(keys)[:KEYS_SHOWN])}{', ...' if len(keys) > KEYS_SHOWN else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
