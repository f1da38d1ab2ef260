"""Paths in a model repository, and its fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from modeling.architectures import ModelSizes
from modeling.pixels import PIXEL_MEAN, PIXEL_STD
from modeling.tensorrt_builder import TENSORRT, TENSORRT_RTX, Builder
from samserve.domain.manifest import DECODER, ENCODER

GRAPHS = (ENCODER, DECODER)
VERSION_FOLDER = "1"
GRAPH_FILE = "model.onnx"
CONFIG_FILE = "config.pbtxt"
PLAN_FILE = "model.plan"
BACKEND_FILE = "model.py"
ENGINE_FILES: Mapping[Builder, str] = MappingProxyType({TENSORRT: PLAN_FILE, TENSORRT_RTX: "model.engine"})

# Preprocessing of a photo before the encoder. A change of it changes the embeddings of the same graph.
PREPROCESSING = {
    "frame": "RGB, longest side resized to image_size, top left",
    "pixel_mean": PIXEL_MEAN,
    "pixel_std": PIXEL_STD,
}

READ_BYTES = 1 << 20


def graph_path(repository: Path, graph: str) -> Path:
    """The ONNX file of one of `GRAPHS`, in Triton's layout of a model repository."""
    return repository / graph / VERSION_FOLDER / GRAPH_FILE


def graph_files(repository: Path, graph: str) -> list[Path]:
    """The ONNX file and the external data beside it, if any."""
    path = graph_path(repository, graph)
    return sorted(path.parent.glob(f"{path.name}*"))


def engine_path(repository: Path, graph: str, builder: Builder) -> Path:
    """Path of the engine that a builder creates for one of `GRAPHS`."""
    return graph_path(repository, graph).with_name(ENGINE_FILES[builder])


def built_files(repository: Path, graph: str) -> list[Path]:
    """The existing files that a build writes for one of `GRAPHS`."""
    beside = [graph_path(repository, graph).with_name(name) for name in (*ENGINE_FILES.values(), BACKEND_FILE)]
    others = [*beside, repository / graph / CONFIG_FILE]
    return [*graph_files(repository, graph), *(path for path in others if path.is_file())]


def fingerprint(repository: Path, sizes: ModelSizes, precision: str) -> str:
    """Compute `sha256:<hex>` over everything that determines embeddings and masks: both graphs with their weights,
    sizes, preprocessing and precision. Engines compiled from the same graphs share embeddings, for any GPU.

    Raises:
        FileNotFoundError: a graph is missing.
    """
    digests = {}
    for graph in GRAPHS:
        if not graph_path(repository, graph).is_file():
            raise FileNotFoundError(f"{graph_path(repository, graph)} is missing; build the models first")
        digests[graph] = {path.name: file_sha256(path) for path in graph_files(repository, graph)}
    content = {
        "graphs": digests,
        "sizes": sizes._asdict(),
        "preprocessing": PREPROCESSING,
        "precision": precision,
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
