"""The decoder: prompts per second by formulation, alone and including the copies of embeddings and masks."""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import SamModel

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.fused_decoder import FusedDecoderGraph
from benchmarks.gpu.models import kit_model
from benchmarks.gpu.modes import compile_options, compiled_graphs, in_mode
from benchmarks.gpu.prompt_inputs import decoder_inputs
from benchmarks.gpu.sources import measure_sources
from modeling.absorbed_decoder import AbsorbedDecoderGraph
from modeling.architectures import model_sizes
from modeling.decoder_graph import MaskDecoderGraph
from modeling.precision import FP16

NO_MASK_INPUT = "fused, without mask input"
FORMULATIONS: Mapping[str, type[MaskDecoderGraph]] = {
    "exported": MaskDecoderGraph,
    "absorbed": AbsorbedDecoderGraph,
    "fused": FusedDecoderGraph,
    NO_MASK_INPUT: FusedDecoderGraph,
}
SHAPES = ((1, 1), (8, 1), (32, 1), (64, 1), (1, 8), (1, 64))
"""Pairs of the number of images and the number of prompts per image."""
SMOKE_SHAPES = ((2, 1), (1, 2))


def run(bench: Bench) -> None:
    """Measure formulations and modes by shape, then the decoder including copies between host and device."""
    model = kit_model(bench.model, bench.seed, bench.device)
    shapes = SHAPES if bench.on_gpu else SMOKE_SHAPES
    for formulation in (NO_MASK_INPUT, "fused", "absorbed", "exported") if bench.on_gpu else ("fused",):
        _mode(bench, model, formulation, "CUDA graph", shapes if bench.on_gpu else ((1, 1),))
    for formulation in (NO_MASK_INPUT, "absorbed"):
        if measure_sources(bench, formulation, decoder_module(model, formulation, bench.device, "CUDA graph")):
            break
    # On a CPU, tracing each shape would take half a minute.
    for formulation in ("absorbed", "exported") if bench.on_gpu else ("absorbed",):
        # The compiler specialises on a batch of one image, and on each number of prompts.
        many = [(images, prompts) for images, prompts in shapes if images > 1 and prompts == 1]
        _mode(bench, model, formulation, "compiled, CUDA graph", many)
    for formulation in ("exported", "absorbed"):
        _mode(bench, model, formulation, "eager", shapes[:2])


def decoder_module(model: SamModel, formulation: str, device: str, mode: str) -> MaskDecoderGraph:
    """Build `sam_mask_decoder` in half precision, compiled if the mode says so. `dynamic_batch` makes the batch size
    dynamic."""
    graph = with_fixed_positions(FORMULATIONS[formulation](model, FP16).to(device))
    if isinstance(graph, FusedDecoderGraph):
        graph.with_mask_input = formulation != NO_MASK_INPUT
    if mode.startswith("compiled"):
        graph.compile(**compile_options(device, dynamic=None))
    return graph


def with_fixed_positions(graph: MaskDecoderGraph) -> MaskDecoderGraph:
    """Compute the positional encoding of the image once, as an exporter's constant folding does."""
    with torch.inference_mode():
        position = graph._image_position().clone()
    graph._image_position = lambda: position  # type: ignore[method-assign]
    return graph


def dynamic_batch(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mark the number of images as dynamic, so that one compilation serves all of them."""
    for tensor in inputs:
        torch._dynamo.mark_dynamic(tensor, 0)
    return inputs


def _mode(bench: Bench, model: SamModel, formulation: str, mode: str, shapes: Sequence[tuple[int, int]]) -> None:
    """Measure one formulation in one mode."""
    about = {"name": formulation, "mode": mode}
    graph = bench.attempt(about, lambda: decoder_module(model, formulation, bench.device, mode))
    if graph is None:
        return
    for batch, prompts in shapes:
        inputs = decoder_inputs(model_sizes(model), batch, prompts, bench.device)
        if mode.startswith("compiled"):
            dynamic_batch(inputs)
        task = functools.partial(in_mode, mode, graph, bench.device, inputs)
        bench.time(
            formulation, task, shapes={"images": batch, "prompts": prompts, "tokens": 2}, precision="fp16",
            work={"prompts": float(batch * prompts)}, mode=mode, seconds=0.2,
        )  # fmt: skip
    if mode.startswith("compiled"):
        bench.write({**about, "graphs_compiled_so_far": compiled_graphs()})
