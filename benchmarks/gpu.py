"""Encoder and decoder in half precision on a GPU: images and prompts a second, against PyTorch and the ceiling.

python -m benchmarks.gpu --model vit_h --random-weights 0

The contestants, on the same inputs:

- eager: transformers' own modules, halved, as PyTorch runs them;
- compiled: the same under `torch.compile`, as segment-anything-fast does it;
- folded: the formulation that is exported, eager, and compiled;
- engine: TensorRT where it is installed, else TensorRT-RTX where it supports the chip.

The ceiling is the rate of one large matrix product, measured here, over the FLOPs that SAM's own formulation takes.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamModel

from modeling.architectures import MODEL_NAMES, embed_pixels, empty_model, model_sizes
from modeling.checkpoints import load_checkpoint
from modeling.decoder_graph import MaskDecoderGraph
from modeling.encoder_graph import ImageEncoderGraph
from modeling.export import export_decoder, export_encoder
from modeling.half_precision import halved
from modeling.parity import measure
from modeling.precision import FP16, Precision
from modeling.probes import probe_images, probe_prompts
from modeling.profiles import BatchProfiles, Range
from modeling.progress import step
from modeling.prompts import prompt_tensors
from modeling.random_weights import random_model
from modeling.reference import ReferenceSam
from modeling.runtimes import GraphRunner
from modeling.tensorrt_builder import (
    TENSORRT,
    TENSORRT_RTX,
    BuilderMissing,
    BuildFailed,
    compile_engine,
    load_builder,
)
from modeling.tensorrt_runner import EngineFailed, engine_runner
from samserve.domain.manifest import DECODER, ENCODER

Runner = Callable[..., Any]
WARM_UP_ROUNDS = 3


class Contestant(NamedTuple):
    """One way to run both graphs, on tensors of the device."""

    name: str
    encoder: Runner
    decoder: Runner


class Row(NamedTuple):
    """One measurement: `rate` images or prompts a second, and the part of the ceiling that they are."""

    contestant: str
    task: str
    size: int
    rate: float
    of_ceiling: float


def unfolded_encoder(model: SamModel, precision: Precision) -> ImageEncoderGraph:
    """The exported graph's inputs and outputs around transformers' own encoder, relative positions as a bias."""
    graph = ImageEncoderGraph(model, precision)
    graph.vision_encoder = halved(model.vision_encoder) if precision == FP16 else model.vision_encoder
    return graph


def torch_contestants(model: SamModel, device: str, precision: Precision, *, compiled: bool) -> list[Contestant]:
    """Those that need PyTorch alone."""
    decoder = MaskDecoderGraph(model, precision).to(device)
    modules: dict[str, nn.Module] = {
        "eager": unfolded_encoder(model, precision),
        "folded": ImageEncoderGraph(model, precision),
    }
    contestants = []
    for name, encoder in modules.items():
        encoder.to(device)
        contestants.append(Contestant(name, encoder, decoder))
        if compiled:
            fast: Any = [torch.compile(module, mode="max-autotune", dynamic=False) for module in (encoder, decoder)]
            contestants.append(Contestant(f"{name}, compiled", *fast))
    return contestants


def engine_contestant(model: SamModel, folder: Path, precision: Precision, largest: int) -> Contestant | None:
    """TensorRT or TensorRT-RTX, compiled for the GPU at hand; None, and why on stderr, where neither serves."""
    sizes = model_sizes(model)
    many = Range(1, largest, largest)
    profiles = BatchProfiles(many, many, many, Range(1, 2, 8))
    for target in (TENSORRT, TENSORRT_RTX):
        try:
            trt, runners = load_builder(target), []
            for graph, export in ((ENCODER, export_encoder), (DECODER, export_decoder)):
                path = folder / f"{graph}.onnx"
                with step(f"compiling {graph} with {target}") as tell:
                    export(model, path, precision=precision)
                    compile_engine(trt, path, path.with_suffix(".engine"), profiles.shapes(graph, sizes), tell=tell)
                runners.append(_one_output_alone(engine_runner(trt, path.with_suffix(".engine"))))
            return Contestant(f"engine ({target} {trt.__version__})", *runners)
        except (BuilderMissing, BuildFailed, EngineFailed) as error:
            print(f"no {target}: {error}", file=sys.stderr)
    return None


def _one_output_alone(runner: Callable[..., list[Tensor]]) -> Runner:
    def run(*tensors: Tensor) -> Any:
        outputs = runner(*tensors)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return run


def matmul_rate(device: str, dtype: torch.dtype, side: int = 8192) -> float:
    """FLOPs a second of a product of two square matrices."""
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = _seconds(lambda: first @ second, device, rounds=10)
    return 2 * side**3 / seconds


def encoder_flops(name: str) -> float:
    """FLOPs of one image in SAM's own formulation, matrix products and convolutions alone."""
    side = model_sizes(empty_model(name)).image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.inference_mode():
        embed_pixels(empty_model(name).vision_encoder, torch.empty(1, 3, side, side))
    return float(counter.get_total_flops())


def decoder_flops(name: str) -> float:
    """FLOPs of one prompt of one point, likewise."""
    graph = MaskDecoderGraph(empty_model(name))
    inputs = _decoder_inputs(graph.sizes, 1, 1, "meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(*inputs)
    return float(counter.get_total_flops())


def _encoder_inputs(side: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    probes = probe_images(batch, side)
    images = torch.from_numpy(np.stack([probe.image for probe in probes]))
    return images.to(device), torch.tensor([probe.input_size for probe in probes], dtype=torch.int32, device=device)


def _decoder_inputs(sizes: Any, batch: int, prompts: int, device: str) -> tuple[Tensor, ...]:
    one = probe_prompts((sizes.image_size, sizes.image_size), sizes.low_res_size)[0]
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch, sizes.channels, sizes.grid_size, sizes.grid_size, generator=generator).half()
    tensors = [torch.from_numpy(array) for array in prompt_tensors([[one] * prompts] * batch, sizes.low_res_size)]
    return tuple(tensor.to(device) for tensor in (embeddings, *tensors))


def _seconds(task: Callable[[], Any], device: str, rounds: int) -> float:
    """The median over rounds, each waited for."""

    def once() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            task()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(WARM_UP_ROUNDS):
        once()
    return statistics.median(once() for _ in range(rounds))


def race(
    contestants: Sequence[Contestant],
    model: SamModel,
    device: str,
    sizes: Sequence[int],
    ceilings: Mapping[str, float],
    rounds: int = 20,
) -> list[Row]:
    """Images a second by batch size; prompts a second by images in a batch, and by prompts on one image."""
    shape = model_sizes(model)
    rows = []
    for size in sizes:
        tasks = {
            "images": ("encoder", _encoder_inputs(shape.image_size, size, device)),
            "prompts on as many images": ("decoder", _decoder_inputs(shape, size, 1, device)),
            "prompts on one image": ("decoder", _decoder_inputs(shape, 1, size, device)),
        }
        for task, (graph, inputs) in tasks.items():
            for contestant in contestants:
                run = functools.partial(getattr(contestant, graph), *inputs)
                rate = size / _seconds(run, device, rounds)
                rows.append(Row(contestant.name, task, size, rate, rate / ceilings[graph]))
    return rows


def parity_of(contestant: Contestant, model: SamModel, device: str, images: int = 2) -> str:
    """The gate's figures for a contestant, against the model in single precision on the CPU."""

    def on_device(runner: Runner) -> GraphRunner:
        def run(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
            with torch.inference_mode():
                outputs = runner(*(torch.from_numpy(array).to(device) for array in arrays))
            return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

        return run

    probes = probe_images(images, model_sizes(model).image_size)
    figures = measure(ReferenceSam(model), on_device(contestant.encoder), on_device(contestant.decoder), probes)
    return (
        f"{contestant.name}: cosine {figures.embedding_cosine:.7f}, embedding error {figures.embedding_error:.4f}, "
        f"mask IoU {figures.mask_iou_min:.4f} at least, {figures.mask_iou_median:.4f} in the median"
    )


def table(rows: Sequence[Row]) -> str:
    """The rates as a Markdown table."""
    lines = ["| task | at a time | contestant | a second | of the ceiling |", "|---|---|---|---|---|"]
    lines += [f"| {row.task} | {row.size} | {row.contestant} | {row.rate:.1f} | {row.of_ceiling:.1%} |" for row in rows]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="vit_h", choices=MODEL_NAMES)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--checkpoint", type=Path)
    weights.add_argument("--random-weights", type=int, metavar="SEED")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8], help="images or prompts at a time")
    parser.add_argument("--eager-only", action="store_true", help="leave out torch.compile, which takes minutes")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu: there is no GPU that PyTorch can use here", file=sys.stderr)
        return 2
    if options.checkpoint:
        model = load_checkpoint(options.model, options.checkpoint).model
    else:
        model = random_model(options.model, options.random_weights)

    rate = matmul_rate("cuda", torch.float16)
    ceilings = {"encoder": rate / encoder_flops(options.model), "decoder": rate / decoder_flops(options.model)}
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {rate / 1e12:.0f} TFLOP/s in one matrix product")
    print(f"ceilings: {ceilings['encoder']:.1f} images/s, {ceilings['decoder']:.0f} prompts/s")
    contestants = torch_contestants(model, "cuda", FP16, compiled=not options.eager_only)
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_contestant(model, Path(folder), FP16, max(options.sizes))
        contestants += [engine] if engine else []
        for contestant in contestants:
            print(parity_of(contestant, model, "cuda"), flush=True)
        print(table(race(contestants, model, "cuda", options.sizes, ceilings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
