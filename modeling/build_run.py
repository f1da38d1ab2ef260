"""The build itself, once the command's flags are known to be right."""

import argparse
import os
import sys
from typing import Any

from transformers import SamModel

from modeling.build import Recipe, build_repository
from modeling.build_arguments import profiles_of
from modeling.checkpoints import InvalidCheckpoint, load_checkpoint
from modeling.clip_build import build_clip
from modeling.engine_volume import file_repository
from modeling.gate import verify_repository
from modeling.parity import ParityFailed
from modeling.progress import step
from modeling.random_weights import random_model
from modeling.targets import TARGETS
from modeling.tensorrt_builder import BuilderMissing, BuildFailed
from modeling.tensorrt_runner import EngineFailed
from samserve.domain.manifest import InvalidManifest

EXIT_FAILED = 2
REFUSALS = (InvalidCheckpoint, InvalidManifest, ParityFailed, BuilderMissing, BuildFailed, EngineFailed, OSError)


def run(options: argparse.Namespace) -> int:
    """Build or verify. Returns 0, or 2 after printing the reason to stderr."""
    try:
        if options.text_model is not None:
            clip = build_clip(options.text_model, options.output, options.target)
            print(f"{options.output} holds {clip.model} for text prompts, {clip.fingerprint}")
            return 0
        model, provenance = _load(options)
        if options.verify:
            found = verify_repository(options.model, model, options.output, images=options.images)
            print(f"{options.output} is what PyTorch computes: {found.graphs}")
            if found.engines:
                print(f"its engines: {found.engines}")
        else:
            output = options.output / f".building-{os.getpid()}" if options.keyed else options.output
            manifest = build_repository(options.model, model, output, _recipe(options), provenance=provenance)
            if options.keyed:
                output = file_repository(output, options.output)
            print(f"{output} holds {manifest.model}, {manifest.precision}, {manifest.fingerprint}")
            engines = manifest.provenance.get("engines")
            if engines and isinstance(engines["parity"], str):
                print(f"its engines were compiled and {engines['parity']}; --verify where there is one")
    except REFUSALS as error:
        print(f"build_engines: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(
        target=options.target,
        precision=options.precision or TARGETS[options.target].precision,
        profiles=profiles_of(options),
        compute_capabilities=tuple(options.compute_capability),
        images=options.images,
    )


def _load(options: argparse.Namespace) -> tuple[SamModel, dict[str, Any]]:
    """Load the model. Returns it and the origin of its weights."""
    if options.random_weights is not None:
        with step(f"filling {options.model} with random weights"):
            return random_model(options.model, options.random_weights), {"random_weights": options.random_weights}
    with step(f"loading {options.checkpoint}"):
        checkpoint = load_checkpoint(options.model, options.checkpoint)
    return checkpoint.model, {
        "checkpoint": checkpoint.file_name,
        "checkpoint_layout": checkpoint.layout,
        "checkpoint_sha256": checkpoint.sha256,
    }
