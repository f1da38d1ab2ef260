"""Build the two CLIP models of text prompts in a model repository."""

import os
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from modeling.build import VERSIONS_OF
from modeling.clip_checkpoint import WEIGHTS_FILE, ClipCheckpoint, load_clip
from modeling.clip_graphs import ClipImageGraph, ClipTextGraph
from modeling.clip_parity import check_clip
from modeling.clip_repository import CLIP_GRAPHS, clip_files, clip_fingerprint, manifest_path
from modeling.export import BATCH, export_module
from modeling.precision import FP32
from modeling.progress import step
from modeling.repository import engine_path, file_sha256, graph_path
from modeling.runtimes import onnx_runtime
from modeling.targets import TARGETS
from modeling.tensorrt_builder import Shapes, compile_engine, load_builder
from modeling.triton_config import write_clip_configs
from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER_FILE, ClipManifest
from samserve.domain.texts import CROPS_PER_RUN, MAX_TEXTS


def build_clip(folder: Path, output: Path, target: str) -> ClipManifest:
    """Export both encoders, compile them if the target has engines, and add them to the repository.

    Args:
        folder: the checkpoint, see `load_clip`.
        target: one of `targets.TARGETS`; the graphs compute in single precision for all of them.

    Raises:
        InvalidCheckpoint: the checkpoint cannot be used.
        ParityFailed: the graphs are wrong.
        BuilderMissing, BuildFailed: they cannot be compiled.
        Whatever is raised, `output` is as it was.
    """
    with step(f"loading {folder}"):
        checkpoint = load_clip(folder)
    output.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        _export(checkpoint, draft)
        shutil.copyfile(checkpoint.tokenizer, draft / TOKENIZER_FILE)
        with step("comparing the graphs with PyTorch"):
            figures = check_clip(checkpoint, *(onnx_runtime(graph_path(draft, graph)) for graph in CLIP_GRAPHS))
        vision, text = checkpoint.config.vision_config, checkpoint.config.text_config
        manifest = ClipManifest(
            fingerprint=clip_fingerprint(draft),
            precision=FP32,
            image_size=vision.image_size,
            context_length=text.max_position_embeddings,
            embedding_width=checkpoint.config.projection_dim,
            model=folder.resolve().name,
            provenance={
                "checkpoint_sha256": file_sha256(folder / WEIGHTS_FILE),
                "parity": asdict(figures),
                "target": target,
                "versions": {package: version(package) for package in VERSIONS_OF},
            },
        )
        compile_clip(draft, manifest, target)
        flavour = TARGETS[target].flavour
        if flavour is not None:
            write_clip_configs(draft, manifest, flavour)
        manifest.write(draft)
        _publish(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _export(checkpoint: ClipCheckpoint, draft: Path) -> None:
    for graph in CLIP_GRAPHS:
        graph_path(draft, graph).parent.mkdir(parents=True)
    vision, text = checkpoint.config.vision_config, checkpoint.config.text_config
    with step(f"exporting {IMAGE_ENCODER}"):
        crops = torch.zeros(2, 3, vision.image_size, vision.image_size, dtype=torch.uint8)
        images = ClipImageGraph(checkpoint.model, checkpoint.image_mean, checkpoint.image_std)
        export_module(images, (crops,), {"image": {0: BATCH}}, ("image_embeds",), graph_path(draft, IMAGE_ENCODER))
    with step(f"exporting {TEXT_ENCODER}"):
        tokens = torch.zeros(2, text.max_position_embeddings, dtype=torch.int32)
        texts = ClipTextGraph(checkpoint.model)
        export_module(texts, (tokens,), {"input_ids": {0: BATCH}}, ("text_embeds",), graph_path(draft, TEXT_ENCODER))


def compile_clip(draft: Path, manifest: ClipManifest, target: str) -> None:
    """Compile both graphs of a repository if the target has engines. Raises the same errors as `build_clip`."""
    builder = TARGETS[target].builder
    if builder is None:
        return
    trt = load_builder(builder)
    side = manifest.image_size
    rows = {IMAGE_ENCODER: (1, CROPS_PER_RUN, CROPS_PER_RUN), TEXT_ENCODER: (1, 1, MAX_TEXTS)}
    inputs = {IMAGE_ENCODER: ("image", (3, side, side)), TEXT_ENCODER: ("input_ids", (manifest.context_length,))}
    for graph in CLIP_GRAPHS:
        name, dims = inputs[graph]
        with step(f"compiling {graph} with {builder} {trt.__version__}") as tell:
            shapes = {name: Shapes(*((count, *dims) for count in rows[graph]))}
            compile_engine(trt, graph_path(draft, graph), engine_path(draft, graph, builder), shapes, tell=tell)


def _publish(draft: Path, output: Path) -> None:
    """Move all files into the repository. The manifest is removed first and written last, so that it never describes
    other graphs."""
    manifest_path(output).unlink(missing_ok=True)
    for stale in clip_files(output):
        stale.unlink()
    for file in [*clip_files(draft), manifest_path(draft)]:
        place = output / file.relative_to(draft)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)
