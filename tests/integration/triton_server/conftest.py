"""A real Triton on the project's own model repository, its Python backend running the bundled model."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from modeling.repository import CONFIG_FILE
from modeling.triton_config import MODELS
from samserve.domain.manifest import ENCODER, ModelManifest
from stack.triton_server import TritonInstallation
from tests.support.triton_server import TritonServer


@pytest.fixture(scope="session")
def other_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same sizes: the weights of the encoder's last norm are larger."""
    folder = tmp_path_factory.mktemp("other-repository") / "models"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / ENCODER / "1" / "model.onnx"
    graph = onnx.load(path)
    [last] = [tensor for tensor in graph.graph.initializer if tensor.name.endswith("neck.layer_norm2.weight")]
    last.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(last), last.name))
    onnx.save(graph, path)
    manifest = ModelManifest.read(repository)
    changed = ModelManifest(
        manifest.model,
        "sha256:" + "07" * 32,
        manifest.precision,
        manifest.image_size,
        manifest.embedding_shape,
        manifest.low_res_size,
    )
    changed.write(folder)
    for model in MODELS:
        config = folder / model / CONFIG_FILE
        config.write_text(config.read_text().replace(manifest.fingerprint, changed.fingerprint))
    return folder


@pytest.fixture
def new_triton(
    installation: TritonInstallation, repository: Path, tmp_path: Path
) -> Iterator[Callable[..., TritonServer]]:
    """Makes Tritons that are not started yet, with these options, for tests that end or exchange them."""
    servers: list[TritonServer] = []

    def make(*options: str) -> TritonServer:
        servers.append(TritonServer(installation, repository, tmp_path / f"triton-{len(servers)}.log", *options))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()
