"""The encoder: images per second by formulation, in eager mode, as a CUDA graph, and compiled block by block."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import SamModel

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.models import VitShapes, kit_model, shapes_of
from benchmarks.gpu.modes import compile_options, compiled_graphs, in_mode
from benchmarks.gpu.vit import Formulation, encoder_graph
from modeling.probes import probe_images

BEST: Formulation = "fused"


def run(bench: Bench) -> None:
    """Measure the most important first: the best formulation at batch 4, then the baselines, then other batch sizes."""
    model = kit_model(bench.model, bench.seed, bench.device)
    shapes = shapes_of(bench.model)
    flop = encoder_flop(shapes)
    bench.write({"name": "counted work", "tflop_per_image": round(flop / 1e12, 4)})
    batches = (4, 1, 8, 2) if bench.on_gpu else (1,)
    first, graph, compiled = batches[:1], "CUDA graph", "compiled, CUDA graph"
    measure = functools.partial(_formulation, bench, model, flop=flop)
    measure(BEST, batches, modes=(graph, "eager") if bench.on_gpu else ("eager",))
    measure("streamed", batches, modes=(compiled, "compiled", graph) if bench.on_gpu else ("compiled",))
    measure("segment-anything-fast", first, modes=(compiled,))
    measure("bias", first, modes=(compiled, "eager"))
    measure("folded", first, modes=(compiled, graph, "eager"))
    measure("padded late", first, modes=(compiled, graph))
    if bench.on_gpu:
        # Autotuning takes about a minute per run, so this comes last.
        measure("segment-anything-fast", first, modes=(compiled,), compile_mode="max-autotune-no-cudagraphs")


def _formulation(
    bench: Bench,
    model: SamModel,
    formulation: Formulation,
    batches: Sequence[int],
    *,
    flop: float,
    modes: Sequence[str],
    compile_mode: str | None = None,
) -> None:
    """Measure all modes and batch sizes of one formulation, on one copy of the weights."""

    def prepared(mode: str) -> Any:
        graph = encoder_graph(model, formulation)
        if mode.startswith("compiled"):
            compile_regions(graph, bench.device, compile_mode)
        return graph

    for mode in modes:
        about = {"name": formulation, "mode": mode, "compile_mode": compile_mode}
        graph = bench.attempt(about, functools.partial(prepared, mode))
        if graph is None:
            continue
        for batch in batches:
            inputs = encoder_inputs(graph.image_size, batch, bench.device)
            task = functools.partial(in_mode, mode, graph, bench.device, inputs)
            bench.time(
                formulation, task, shapes={"batch": batch}, precision="fp16",
                work={"images": float(batch), "flop": flop * batch}, mode=mode, compile_mode=compile_mode,
            )  # fmt: skip
        if mode.startswith("compiled"):
            bench.write({**about, "graphs_compiled_so_far": compiled_graphs()})


def compile_regions(graph: Any, device: str, mode: str | None = None) -> None:
    """Compile each kind of block once. Blocks of one kind share the code, so 32 layers take as long to compile as
    two."""
    encoder: Any = graph.vision_encoder
    for layer in encoder.layers:
        layer.compile(**compile_options(device, mode=mode))


@torch.inference_mode()
def encoder_inputs(side: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Create images uint8 `[B, 3, S, S]` and their sizes int32 `[B, 2]`."""
    probes = probe_images(min(batch, 4), side)
    images = torch.from_numpy(np.stack([probes[index % len(probes)].image for index in range(batch)]))
    sizes = torch.tensor([probes[index % len(probes)].input_size for index in range(batch)], dtype=torch.int32)
    return images.to(device), sizes.to(device)


def encoder_flop(shapes: VitShapes) -> float:
    """Count the FLOPs of one image in SAM's own formulation: blocks, attention, patch embedding and neck (ViT-H: 5.96
    T)."""
    hidden, padded, tokens = shapes.hidden, shapes.padded_tokens, shapes.tokens
    whole, windowed = len(shapes.global_layers), shapes.layers - len(shapes.global_layers)
    projections = 8.0 * hidden**2 * (whole * tokens + windowed * padded)
    mlp = 4.0 * hidden * shapes.mlp * tokens * shapes.layers
    attention = 4.0 * hidden * (whole * tokens * tokens + windowed * padded * shapes.window**2)
    positions = 4.0 * hidden * (whole * tokens * shapes.grid + windowed * padded * shapes.window)
    patches = 2.0 * tokens * hidden * 3 * 16 * 16
    neck = 2.0 * tokens * (hidden * 256 + 256 * 256 * 9)
    return projections + mlp + attention + positions + patches + neck
