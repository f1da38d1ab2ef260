"""Build a model repository from a PyTorch model."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import SamModel

from modeling.architectures import model_sizes
from modeling.export import export_decoder, export_encoder
from modeling.gate import gate_engines, gate_graphs
from modeling.half_storage import round_weights
from modeling.model_names import BUNDLED, BUNDLED_MASK_GENERATION
from modeling.precision import FP32, Precision
from modeling.profiles import DEFAULT_PROFILES, BatchProfiles
from modeling.progress import step
from modeling.repository import GRAPHS, built_files, engine_path, file_sha256, fingerprint, graph_path
from modeling.targets import TARGETS, Target
from modeling.tensorrt_builder import Builder, compile_engine, load_builder
from modeling.tensorrt_runner import gpu_name
from modeling.thresholds import DEFAULT_IMAGES
from modeling.triton_config import write_configs
from samserve.domain import manifest as manifest_file
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest

VERSIONS_OF = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build.

    Attributes:
        target: one of `targets.TARGETS`.
        precision: of the arithmetic.
        profiles: what engines take at once.
        compute_capabilities: what TensorRT-RTX compiles for (`tensorrt_builder.compile_engine`).
        images: how many images the gate tries.
    """

    target: str = "onnx"
    precision: Precision = FP32
    profiles: BatchProfiles = DEFAULT_PROFILES
    compute_capabilities: tuple[int, ...] = ()
    images: int = DEFAULT_IMAGES


def build_repository(
    name: str, model: SamModel, output: Path, recipe: Recipe, *, provenance: Mapping[str, Any]
) -> ModelManifest:
    """Export both graphs, compile them if the target has engines, and publish them if they pass the parity gate.

    Args:
        name: of the architecture.
        model: float32; the bundled model's weights are rounded to half precision in place, as they are stored so.
        output: the model repository; what no build wrote is left alone.
        recipe: what to build.
        provenance: where the weights came from; versions, parity figures and engines are added.

    Raises:
        BuilderMissing: the target's builder is not installed.
        BuildFailed: it refuses a graph.
        ParityFailed: graphs or engines are wrong.
        EngineFailed: the engines do not run on the GPU here.
        Whatever is raised, `output` is as it was.
    """
    target = TARGETS[recipe.target]
    trt = load_builder(target.builder) if target.builder else None
    bundled = name == BUNDLED
    if bundled:
        round_weights(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for graph, export in ((ENCODER, export_encoder), (DECODER, export_decoder)):
            graph_path(draft, graph).parent.mkdir(parents=True)
            with step(f"exporting {graph}"):
                stored_half = bundled and recipe.precision == FP32
                export(model, graph_path(draft, graph), precision=recipe.precision, half_storage=stored_half)
        figures = gate_graphs(model, draft, recipe.precision, recipe.images)
        engines = {}
        if trt and target.builder:
            engines = {"engines": _compile(trt, target.builder, model, draft, recipe)}
        manifest = _manifest(name, model, draft, recipe, {**provenance, "parity": asdict(figures), **engines})
        manifest.write(draft)
        _configure(target, draft, manifest, recipe)
        _publish(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _compile(trt: ModuleType, builder: Builder, model: SamModel, draft: Path, recipe: Recipe) -> dict[str, Any]:
    """Compile both graphs and run the parity gate on the engines. Returns their entry for the manifest."""
    for graph in GRAPHS:
        with step(f"compiling {graph} with {builder} {trt.__version__}") as tell:
            compile_engine(
                trt,
                graph_path(draft, graph),
                engine_path(draft, graph, builder),
                recipe.profiles.shapes(graph, model_sizes(model)),
                compute_capabilities=recipe.compute_capabilities,
                tell=tell,
            )
    parity = gate_engines(model, draft, builder, recipe.precision, recipe.images)
    files = {graph: engine_path(draft, graph, builder) for graph in GRAPHS}
    return {
        "builder": f"{builder} {trt.__version__}",
        "gpu": gpu_name(),
        "compute_capabilities": list(recipe.compute_capabilities) or "the builder's choice",
        "profiles": {name: str(value) for name, value in recipe.profiles._asdict().items()},
        "files": {graph: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for graph, path in files.items()},
        "parity": parity if isinstance(parity, str) else asdict(parity),
    }


def _manifest(name: str, model: SamModel, draft: Path, recipe: Recipe, provenance: Mapping[str, Any]) -> ModelManifest:
    sizes = model_sizes(model)
    half = name == BUNDLED or recipe.precision != FP32
    return ModelManifest(
        model=name,
        fingerprint=fingerprint(draft, sizes, recipe.precision),
        precision=recipe.precision,
        image_size=sizes.image_size,
        embedding_shape=(sizes.channels, sizes.grid_size, sizes.grid_size),
        low_res_size=sizes.low_res_size,
        mask_generation=BUNDLED_MASK_GENERATION if name == BUNDLED else {},
        provenance={
            **provenance,
            "target": recipe.target,
            "weights_stored_as": "float16" if half else "float32",
            "versions": {package: version(package) for package in VERSIONS_OF},
        },
    )


def _configure(target: Target, draft: Path, manifest: ModelManifest, recipe: Recipe) -> None:
    """Write Triton's configuration, if the target has one."""
    if target.flavour is None:
        return
    batches = {}
    if target.builder:
        profiles = recipe.profiles
        batches = {"encoder_max_batch": profiles.encoder_batch.max, "decoder_max_batch": profiles.decoder_batch.max}
    write_configs(draft, manifest, target.flavour, **batches)


def _publish(draft: Path, output: Path) -> None:
    """Move all files into the repository. The manifest is removed first and written last, so that it never describes
    other graphs."""
    (output / manifest_file.FILE_NAME).unlink(missing_ok=True)
    for graph in GRAPHS:
        for stale in built_files(output, graph):
            stale.unlink()
        for file in built_files(draft, graph):
            place = output / file.relative_to(draft)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    os.replace(draft / manifest_file.FILE_NAME, output / manifest_file.FILE_NAME)
