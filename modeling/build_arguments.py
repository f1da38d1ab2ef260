"""Flags of the build command. Wrong ones are refused before PyTorch is imported, which takes seconds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modeling.model_names import BUNDLED, MODEL_NAMES
from modeling.precision import PRECISIONS
from modeling.profiles import DEFAULT_PROFILES, MAX_TOKENS, BatchProfiles, Range
from modeling.targets import TARGETS
from modeling.tensorrt_builder import TENSORRT_RTX
from modeling.thresholds import DEFAULT_IMAGES, MIN_IMAGES
from samserve.domain.prompts import PROMPTS_PER_DECODE


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with exit code 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        description="Build the served models: convert a SAM checkpoint to a model repository, checked by a parity gate."
    )
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--model", choices=MODEL_NAMES, help="architecture of the checkpoint")
    models.add_argument(
        "--text-model",
        type=Path,
        metavar="FOLDER",
        help="a CLIP checkpoint in Hugging Face's layout, for text prompts; added to the models in --output; can be "
        "combined with --output and --target only",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint",
        type=Path,
        help="Meta's .pth, a Hugging Face .safetensors or .bin file or a folder with one; for the bundled model, a "
        "model repository",
    )
    weights.add_argument(
        "--random-weights", type=int, metavar="SEED", help="random weights instead of a checkpoint, for tests"
    )
    parser.add_argument("--output", required=True, type=Path, help="model repository to write")
    parser.add_argument(
        "--target",
        default="onnx",
        choices=list(TARGETS),
        help="onnx: the ONNX graphs only (default); cpu: also Triton's configuration for its Python backend; tensorrt: "
        "also TensorRT plans for the local GPU and their Triton configuration; tensorrt-rtx: also TensorRT-RTX "
        "engines, which need no GPU to build",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="arithmetic precision; default: fp16 for engines, otherwise fp32"
    )
    for name, default in DEFAULT_PROFILES._asdict().items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_range,
            default=default,
            metavar="MIN:OPT:MAX",
            help=f"range of sizes that the engines accept; default: {default}",
        )
    parser.add_argument(
        "--compute-capability",
        type=int,
        nargs="+",
        default=(),
        metavar="SM",
        help="compute capabilities to compile for, such as 86 89 (TensorRT-RTX only; default: all supported ones)",
    )
    parser.add_argument(
        "--keyed",
        action="store_true",
        help="treat --output as a volume of engines and write to <GPU>/<builder>/<fingerprint> in it",
    )
    parser.add_argument("--images", type=int, default=DEFAULT_IMAGES, help="number of images in the parity gate")
    parser.add_argument(
        "--verify", action="store_true", help="run the parity gate on the models in --output without writing"
    )
    options = parser.parse_args(arguments)
    if options.text_model is not None:
        if options.checkpoint or options.random_weights is not None or options.verify or options.precision:
            parser.error("--text-model can be combined with --output and --target only")
        return options
    if options.images < MIN_IMAGES:
        parser.error(f"--images must be at least {MIN_IMAGES}: the gate compares different images")
    if options.compute_capability and TARGETS[options.target].builder != TENSORRT_RTX:
        parser.error(f"--compute-capability requires --target {TENSORRT_RTX}; TensorRT compiles for the local GPU")
    if options.keyed and (options.verify or TARGETS[options.target].builder is None):
        parser.error("--keyed requires a --target with engines, and no --verify")
    if TARGETS[options.target].flavour == "tensorrt" and not _hold_what_is_sent(profiles_of(options)):
        parser.error(
            f"the gateway sends from 1 prompt of 2 points to {PROMPTS_PER_DECODE} of {MAX_TOKENS}; widen the ranges"
        )
    if options.checkpoint is None and options.random_weights is None:
        if not (options.verify and options.model == BUNDLED):
            parser.error("--checkpoint or --random-weights is required")
        # The bundled model's graphs contain all its weights under their own names.
        options.checkpoint = options.output
    return options


def _range(text: str) -> Range:
    try:
        return Range.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def profiles_of(options: argparse.Namespace) -> BatchProfiles:
    """The engines' ranges."""
    return BatchProfiles(**{name: getattr(options, name) for name in BatchProfiles._fields})


def _hold_what_is_sent(profiles: BatchProfiles) -> bool:
    encoder_batch, decoder_batch, prompts, points = profiles
    smallest = max(encoder_batch.min, decoder_batch.min, prompts.min, points.min - 1)
    return smallest <= 1 and prompts.max >= PROMPTS_PER_DECODE and points.max >= MAX_TOKENS
