"""Triton's side of a model repository: both models' configuration in either flavour, from one source.

    python -m modeling.triton_config [--flavour cpu|tensorrt] [REPOSITORY]

switches a repository's flavour. It needs no torch, so that the machine that serves can do it. docs/triton.md describes
the contract that these files state.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from modeling.repository import BACKEND_FILE, CONFIG_FILE, PLAN_FILE
from samserve.domain import clip_manifest
from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER, ClipManifest
from samserve.domain.manifest import DECODER, ENCODER, InvalidManifest, ModelManifest
from samserve.domain.texts import CROPS_PER_RUN, MAX_TEXTS
from samserve.gateway.settings import default_model_repository

Flavour = Literal["cpu", "tensorrt"]

MODELS = (ENCODER, DECODER)
CLIP_MODELS = (IMAGE_ENCODER, TEXT_ENCODER)

_BACKEND_SOURCE = Path(__file__).with_name("triton_backend.py")

_REASONS = {
    "version_policy": "One version at a time: two would hold two models' memory, and the cache knows one.",
    "max_batch_size": "Rows of one run, each an image. The batcher makes them of requests whose shapes are equal.",
    "dynamic_batching": "What waits while the model runs becomes the next batch; nobody is made to wait for company. "
    "The queue is bounded and its wait too: what does not fit is refused at once and what has waited too long is "
    "never run, since its caller is gone or will try elsewhere. A request may ask for less time, not for more.",
    "instance_group": "One run at a time. A second instance would double the memory and halve the batches; "
    "the gateway also takes from it that outputs are written in the order of the requests (docs/triton.md).",
    "parameters": "What the gateway must know about the model: both models have to be of one build.",
    "model_warmup": "Ready means warm: what a first run sets up is set up before Triton says so.",
}
"""Reasons for the values of each section, written above it as comments."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Maximum number of waiting requests of one model, and their timeout."""

    size: int
    timeout_seconds: float


# Per Triton, so for all gateways together. The encoder's: what a GPU of the smaller kind works off within the timeout.
_QUEUES = {
    ENCODER: Queue(64, 10.0),
    DECODER: Queue(256, 5.0),
    IMAGE_ENCODER: Queue(64, 30.0),
    TEXT_ENCODER: Queue(64, 10.0),
}

# Rows of one run. A processor encodes no faster by batches, and the first of a batch would wait for the last.
_MAX_BATCHES: dict[Flavour, dict[str, int]] = {
    "cpu": {ENCODER: 1, DECODER: 16, IMAGE_ENCODER: CROPS_PER_RUN, TEXT_ENCODER: MAX_TEXTS},
    "tensorrt": {ENCODER: 4, DECODER: 16, IMAGE_ENCODER: CROPS_PER_RUN, TEXT_ENCODER: MAX_TEXTS},
}


def default_max_batch(flavour: Flavour, model: str) -> int:
    """Rows per execution that a flavour's configuration allows by default."""
    return _MAX_BATCHES[flavour][model]


def write_configs(
    repository: Path,
    manifest: ModelManifest,
    flavour: Flavour,
    *,
    encoder_max_batch: int | None = None,
    decoder_max_batch: int | None = None,
) -> None:
    """Write both models' `config.pbtxt`, and `1/model.py` where Triton's Python backend runs them.

    The graphs (`1/model.onnx` or `1/model.plan`) are not touched. Written again, the files are the same.

    Args:
        manifest: of the graphs in the repository.
        encoder_max_batch: what the plan's profile allows; by default `default_max_batch`.
        decoder_max_batch: likewise.
    """
    batches = {ENCODER: encoder_max_batch, DECODER: decoder_max_batch}
    for model in MODELS:
        max_batch = batches[model] or default_max_batch(flavour, model)
        _write_config(repository, model_config(model, manifest, flavour, max_batch), flavour)


def write_clip_configs(repository: Path, manifest: ClipManifest, flavour: Flavour) -> None:
    """Write the configurations of the two models of text prompts, as `write_configs` does."""
    for model in CLIP_MODELS:
        _write_config(repository, model_config(model, manifest, flavour, default_max_batch(flavour, model)), flavour)


def _write_config(repository: Path, config: Any, flavour: Flavour) -> None:
    folder = repository / config.name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config_text(config))
    backend = folder / "1" / BACKEND_FILE
    if flavour == "cpu":
        shutil.copyfile(_BACKEND_SOURCE, backend)
    else:
        backend.unlink(missing_ok=True)


def model_config(model: str, manifest: ModelManifest | ClipManifest, flavour: Flavour, max_batch: int) -> Any:
    """Build the `ModelConfig` message of one of `MODELS`, or of `CLIP_MODELS` with their own manifest."""
    inputs, outputs = (
        _tensors(model, manifest) if isinstance(manifest, ModelManifest) else _clip_tensors(manifest)[model]
    )
    queue = _QUEUES[model]
    config = pb.ModelConfig(
        name=model,
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        max_batch_size=max_batch,
        input=[pb.ModelInput(name=name, data_type=kind, dims=dims) for name, kind, dims in inputs],
        output=[pb.ModelOutput(name=name, data_type=kind, dims=dims) for name, kind, dims in outputs],
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=0,
            default_queue_policy=pb.ModelQueuePolicy(
                timeout_action=pb.ModelQueuePolicy.REJECT,
                default_timeout_microseconds=round(queue.timeout_seconds * 1e6),
                allow_timeout_override=True,
                max_queue_size=queue.size,
            ),
        ),
        model_warmup=[_warmup(inputs, rows) for rows in dict.fromkeys((1, max_batch if flavour == "tensorrt" else 1))],
    )
    if flavour == "cpu":
        config.backend = "python"
        config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    else:
        config.platform = "tensorrt_plan"
        config.default_model_filename = PLAN_FILE
        config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_GPU)
    for name in ("model", "fingerprint", "precision"):
        config.parameters[name].string_value = getattr(manifest, name)
    if isinstance(manifest, ModelManifest):
        for name, value in manifest.mask_generation.items():
            config.parameters[name].string_value = str(value)
    return config


def config_text(config: Any) -> str:
    """Render a `ModelConfig` as `config.pbtxt`, with the reasons as comments above the sections."""
    lines = ["# Written by modeling/triton_config.py; what is changed here is lost."]
    commented = set()
    for line in text_format.MessageToString(config).splitlines():
        section = re.match(r"\w+", line)
        if section and section[0] in _REASONS and section[0] not in commented:
            commented.add(section[0])
            lines += ["", *_comment(_REASONS[section[0]])]
        lines.append(line)
    return "\n".join(lines) + "\n"


_Tensors = list[tuple[str, int, tuple[int, ...]]]


def _tensors(model: str, manifest: ModelManifest) -> tuple[_Tensors, _Tensors]:
    """Inputs and outputs without the batch dimension; -1 stands for the number of prompts and of points
    (docs/triton.md)."""
    side, masks = manifest.image_size, manifest.low_res_size
    embedding = ("image_embeddings", pb.TYPE_FP16, manifest.embedding_shape)
    if model == ENCODER:
        return [("image", pb.TYPE_UINT8, (3, side, side)), ("input_size", pb.TYPE_INT32, (2,))], [embedding]
    return [
        embedding,
        ("point_coords", pb.TYPE_FP32, (-1, -1, 2)),
        ("point_labels", pb.TYPE_INT32, (-1, -1)),
        ("mask_input", pb.TYPE_FP32, (-1, masks, masks)),
        ("has_mask_input", pb.TYPE_FP32, (-1,)),
    ], [
        ("low_res_masks", pb.TYPE_FP32, (-1, 4, masks, masks)),
        ("iou_predictions", pb.TYPE_FP32, (-1, 4)),
    ]


def _clip_tensors(manifest: ClipManifest) -> dict[str, tuple[_Tensors, _Tensors]]:
    side, embeds = manifest.image_size, (manifest.embedding_width,)
    tokens = ("input_ids", pb.TYPE_INT32, (manifest.context_length,))
    return {
        IMAGE_ENCODER: ([("image", pb.TYPE_UINT8, (3, side, side))], [("image_embeds", pb.TYPE_FP32, embeds)]),
        TEXT_ENCODER: ([tokens], [("text_embeds", pb.TYPE_FP32, embeds)]),
    }


def _warmup(inputs: _Tensors, rows: int) -> Any:
    warmup = pb.ModelWarmup(name=f"{rows} rows" if rows > 1 else "1 row", batch_size=rows, count=1)
    for name, kind, dims in inputs:
        # One prompt of two points: a click, padded as in SAM.
        shape = (1, 2, *dims[2:]) if name.startswith("point_") else [1 if size < 0 else size for size in dims]
        warmup.inputs[name].CopyFrom(pb.ModelWarmup.Input(data_type=kind, dims=shape, zero_data=True))
    return warmup


def _comment(text: str, width: int = 118) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def main(arguments: Sequence[str] | None = None) -> int:
    """Switch a repository's flavour. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Switch a model repository between Triton's two flavours.")
    parser.add_argument("repository", nargs="?", type=Path, default=default_model_repository())
    parser.add_argument("--flavour", choices=get_args(Flavour), default="cpu")
    options = parser.parse_args(arguments)
    graph = PLAN_FILE if options.flavour == "tensorrt" else "model.onnx"
    try:
        manifest = ModelManifest.read(options.repository)
        has_clip = (options.repository / clip_manifest.FILE_NAME).is_file()
        models = (*MODELS, *CLIP_MODELS) if has_clip else MODELS
        missing = [path for model in models if not (path := options.repository / model / "1" / graph).is_file()]
        if missing:
            raise InvalidManifest(f"{missing[0]} is missing; build it with build_engines.py")
        if has_clip:
            write_clip_configs(options.repository, ClipManifest.read(options.repository), options.flavour)
    except InvalidManifest as error:
        print(f"triton_config: {error}", file=sys.stderr)
        return 2
    write_configs(options.repository, manifest, options.flavour)
    return 0


if __name__ == "__main__":
    sys.exit(main())
