"""From a model in PyTorch to a model repository, and back to make sure."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import SamModel

from modeling.architectures import BUNDLED, model_sizes
from modeling.export import export_decoder, export_encoder
from modeling.half_storage import round_weights
from modeling.parity import DEFAULT_IMAGES, ParityFailed, ParityFigures, check_parity
from modeling.progress import step
from modeling.reference import ReferenceSam
from modeling.repository import DECODER, ENCODER, GRAPHS, fingerprint, graph_files, graph_path
from modeling.runtimes import onnx_runtime
from samserve.domain import manifest as manifest_file
from samserve.domain.manifest import ModelManifest

FP32 = "fp32"
VERSIONS_OF = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


def build_repository(
    name: str,
    model: SamModel,
    output: Path,
    *,
    provenance: Mapping[str, Any],
    images: int = DEFAULT_IMAGES,
) -> ModelManifest:
    """Export both graphs, pass them through the parity gate, and only then put them into the repository.

    Args:
        name: of the architecture.
        model: float32; the bundled model's weights are rounded to half precision in place, as they are stored so.
        output: the model repository; files of other kinds in it are left alone.
        provenance: where the weights came from; versions and parity figures are added.
        images: how many images the gate tries.

    Raises:
        ParityFailed: the graphs are wrong; `output` is as it was.
    """
    bundled = name == BUNDLED
    if bundled:
        round_weights(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for graph, export in ((ENCODER, export_encoder), (DECODER, export_decoder)):
            graph_path(draft, graph).parent.mkdir(parents=True)
            with step(f"exporting {graph}"):
                export(model, graph_path(draft, graph), half_storage=bundled)
        figures = _gate(model, draft, images)
        sizes = model_sizes(model)
        manifest = ModelManifest(
            model=name,
            fingerprint=fingerprint(draft, sizes, FP32),
            precision=FP32,
            image_size=sizes.image_size,
            embedding_shape=(sizes.channels, sizes.grid_size, sizes.grid_size),
            low_res_size=sizes.low_res_size,
            provenance={
                **provenance,
                "weights_stored_as": "float16" if bundled else "float32",
                "versions": {package: version(package) for package in VERSIONS_OF},
                "parity": asdict(figures),
            },
        )
        manifest.write(draft)
        _publish(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def verify_repository(name: str, model: SamModel, repository: Path, *, images: int = DEFAULT_IMAGES) -> ParityFigures:
    """Run the parity gate on a repository as it lies there.

    Raises:
        InvalidManifest: the manifest is missing or unreadable.
        ParityFailed: the manifest is not that of these files, or the graphs differ from the model.
    """
    manifest = ModelManifest.read(repository)
    if manifest.model != name:
        raise ParityFailed(f"{repository} holds {manifest.model}, not {name}: pass --model {manifest.model}")
    sizes = model_sizes(model)
    if manifest.image_size != sizes.image_size:
        raise ParityFailed(
            f"{repository} takes images of {manifest.image_size} pixels, and {name} is made for {sizes.image_size}; "
            "build it again"
        )
    if manifest.fingerprint != fingerprint(repository, sizes, manifest.precision):
        raise ParityFailed(f"{repository}: its files are not those that its manifest describes; build it again")
    if name == BUNDLED:
        round_weights(model)
    return _gate(model, repository, images)


def _gate(model: SamModel, repository: Path, images: int) -> ParityFigures:
    with step("loading the graphs into ONNX Runtime"):
        encoder, decoder = (onnx_runtime(graph_path(repository, graph)) for graph in GRAPHS)
    with step(f"comparing with PyTorch on {images} images"):
        return check_parity(ReferenceSam(model), encoder, decoder, images=images)


def _publish(draft: Path, output: Path) -> None:
    """Move graphs and manifest in. The manifest goes first and comes last: it never describes other files' graphs."""
    (output / manifest_file.FILE_NAME).unlink(missing_ok=True)
    for graph in GRAPHS:
        for stale in graph_files(output, graph):
            stale.unlink()
        folder = graph_path(output, graph).parent
        folder.mkdir(parents=True, exist_ok=True)
        for file in graph_files(draft, graph):
            os.replace(file, folder / file.name)
    os.replace(draft / manifest_file.FILE_NAME, output / manifest_file.FILE_NAME)
