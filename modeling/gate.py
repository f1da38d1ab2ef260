"""The parity gate for the files of a model repository."""

from pathlib import Path
from typing import Any, NamedTuple

from transformers import SamModel

from modeling.architectures import model_sizes
from modeling.half_storage import round_weights
from modeling.model_names import BUNDLED
from modeling.parity import ParityFailed, ParityFigures, check_parity
from modeling.precision import PRECISIONS, Precision
from modeling.progress import step
from modeling.reference import ReferenceSam
from modeling.repository import (
    ENGINE_FILES,
    GRAPHS,
    engine_path,
    file_sha256,
    fingerprint,
    graph_path,
)
from modeling.runtimes import graph_runner
from modeling.tensorrt_builder import Builder, load_builder
from modeling.tensorrt_runner import engine_runner, has_gpu, on_arrays
from modeling.thresholds import DEFAULT_IMAGES, THRESHOLDS
from samserve.domain.manifest import ModelManifest

ENGINES_NOT_RUN = "not run: there is no GPU here"


class Verification(NamedTuple):
    """Results of `verify_repository`: figures of the graphs and of the engines, or None if they are not available.

    Attributes:
        graphs: figures of the ONNX graphs.
        engines: figures of the compiled engines, or why there are none, or None if the repository holds none.
    """

    graphs: ParityFigures
    engines: ParityFigures | str | None


def gate_graphs(model: SamModel, repository: Path, precision: Precision, images: int) -> ParityFigures:
    """Compare the ONNX graphs, run with ONNX Runtime, with the PyTorch model.

    Raises:
        ParityFailed: they differ.
    """
    with step("loading the graphs into ONNX Runtime"):
        encoder, decoder = (graph_runner(graph_path(repository, graph), precision) for graph in GRAPHS)
    with step(f"comparing the graphs with PyTorch on {images} images") as tell:
        thresholds = THRESHOLDS[precision]
        return check_parity(ReferenceSam(model), encoder, decoder, images=images, thresholds=thresholds, tell=tell)


def gate_engines(
    model: SamModel, repository: Path, builder: Builder, precision: Precision, images: int
) -> ParityFigures | str:
    """Compare the engines, run on this machine's GPU, with the PyTorch model. Without a GPU, report that they were not
    run.

    Raises:
        BuilderMissing: what compiled them is not installed.
        EngineFailed: they do not load or run on this GPU.
        ParityFailed: they differ.
    """
    if not has_gpu():
        return ENGINES_NOT_RUN
    trt = load_builder(builder)
    with step("loading the engines onto the GPU"):
        encoder, decoder = (on_arrays(engine_runner(trt, engine_path(repository, graph, builder))) for graph in GRAPHS)
    with step(f"comparing the engines with PyTorch on {images} images") as tell:
        thresholds = THRESHOLDS[precision]
        return check_parity(ReferenceSam(model), encoder, decoder, images=images, thresholds=thresholds, tell=tell)


def verify_repository(name: str, model: SamModel, repository: Path, *, images: int = DEFAULT_IMAGES) -> Verification:
    """Run the parity gate on an existing repository.

    Raises:
        InvalidManifest: the manifest is missing or unreadable.
        ParityFailed: the manifest is not that of these files, or they differ from the model.
        BuilderMissing: it holds engines, there is a GPU, and what compiled them is not installed.
        EngineFailed: its engines do not run on this GPU.
    """
    manifest = ModelManifest.read(repository)
    if manifest.model != name:
        raise ParityFailed(f"{repository} holds {manifest.model}, not {name}: pass --model {manifest.model}")
    precision = _precision(manifest)
    sizes = model_sizes(model)
    if manifest.image_size != sizes.image_size:
        raise ParityFailed(
            f"{repository} takes images of {manifest.image_size} pixels, and {name} is made for {sizes.image_size}; "
            "build it again"
        )
    if manifest.fingerprint != fingerprint(repository, sizes, precision):
        raise ParityFailed(f"{repository}: its files are not those that its manifest describes; build it again")
    builders = [builder for builder in ENGINE_FILES if engine_path(repository, GRAPHS[0], builder).is_file()]
    for builder in builders:
        _check_engine_files(repository, builder, manifest)
    if name == BUNDLED:
        round_weights(model)
    graphs = gate_graphs(model, repository, precision, images)
    engines = [gate_engines(model, repository, builder, precision, images) for builder in builders]
    return Verification(graphs, engines[0] if engines else None)


def _precision(manifest: ModelManifest) -> Precision:
    for precision in PRECISIONS:
        if manifest.precision == precision:
            return precision
    raise ParityFailed(f"the manifest states an unknown precision, {manifest.precision!r}; build it again")


def _check_engine_files(repository: Path, builder: Builder, manifest: ModelManifest) -> None:
    stated: Any = manifest.provenance.get("engines", {})
    for graph in GRAPHS:
        path = engine_path(repository, graph, builder)
        digest = stated.get("files", {}).get(graph, {}).get("sha256")
        if not path.is_file() or file_sha256(path) != digest:
            raise ParityFailed(f"{path} is not the engine that the manifest describes; build it again")
