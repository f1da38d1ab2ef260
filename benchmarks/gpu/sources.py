"""Time per prompt including the copies: embeddings from their memory to the decoder, and masks to the host."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.fused_decoder import FusedDecoderGraph
from benchmarks.gpu.modes import replayed
from benchmarks.gpu.prompt_inputs import decoder_inputs
from modeling.architectures import ModelSizes
from modeling.decoder_graph import MaskDecoderGraph

SLOTS = 256
"""Number of embeddings per memory: 512 MiB at SAM's size, more than any GPU's cache."""
ROWS = (64, 16)


@torch.inference_mode()
def measure_sources(bench: Bench, name: str, decoder: MaskDecoderGraph) -> bool:
    """Gather embeddings, decode one prompt on each, and copy the masks to the host, for each source and each output.

    Args:
        name: of the decoder, in every line.
        decoder: in half precision, not compiled.

    Returns:
        Whether the decoder ran at all.
    """
    slots, row_counts = (SLOTS, ROWS) if bench.on_gpu else (4, (1,))
    places = embedding_places(bench, decoder, slots)
    outputs = OUTPUTS if bench.on_gpu else {"1 mask, fp16": OUTPUTS["1 mask, fp16"]}
    ran = False
    for rows in row_counts:
        for output, masks in outputs.items():
            make = functools.partial(Pipeline, masks.answered_by(decoder), decoder.sizes, rows, bench.device)
            pipeline = bench.attempt({"name": output, "shapes": {"rows": rows}, "decoder": name}, make)
            if pipeline is None:
                continue
            ran = True
            bytes_out = masks.number * masks.dtype.itemsize * decoder.sizes.low_res_size**2
            for source, place in places.items():
                _measure(bench, pipeline, source, place, output, decoder=name, bytes_out_per_prompt=bytes_out)
    return ran


def _measure(bench: Bench, pipeline: "Pipeline", source: str, place: Tensor, output: str, **more: Any) -> None:
    rows, bytes_in = pipeline.rows, place[0].numel() * place.itemsize
    if output.startswith("1"):
        bench.time(
            f"gather, {source}", lambda: lambda: pipeline.gather(place, 0), shapes={"rows": rows}, precision="fp16",
            seconds=0.2, work={"prompts": float(rows), "bytes": float(rows * bytes_in)},
        )  # fmt: skip
    bench.time(
        f"gather, decode, masks to the host: {source}, {output}", lambda: lambda: pipeline.step(place),
        shapes={"rows": rows}, precision="fp16", seconds=0.2, work={"prompts": float(rows)},
        mode="two batches at once", bytes_in_per_prompt=bytes_in, **more,
    )  # fmt: skip


class Masks(NamedTuple):
    """The masks that are copied to the host, and their type."""

    first: int
    number: int
    dtype: torch.dtype

    def answered_by(self, decoder: MaskDecoderGraph) -> Callable[..., Tensor]:
        """Wrap the decoder as a function to these masks, `[B, P, number, M, M]`. A fused decoder computes only
        these."""
        first, number, dtype = self

        def decode(*inputs: Tensor) -> Tensor:
            if isinstance(decoder, FusedDecoderGraph):
                decoder.first, decoder.count, decoder.mask_dtype = first, number, dtype
                return decoder(*inputs)[0]
            masks: Tensor = decoder(*inputs)[0][:, :, first : first + number].to(dtype)
            return masks

        return decode


OUTPUTS: Mapping[str, Masks] = {
    "4 masks, fp32": Masks(0, 4, torch.float32),
    "3 masks, fp16": Masks(1, 3, torch.float16),
    "1 mask, fp16": Masks(0, 1, torch.float16),
}


def embedding_places(bench: Bench, decoder: MaskDecoderGraph, slots: int) -> dict[str, Tensor]:
    """Create the same embeddings, half `[slots, C, G, G]`, on the device, in pinned and in pageable host memory."""
    sizes = decoder.sizes
    shape = (slots, sizes.channels, sizes.grid_size, sizes.grid_size)
    slab = torch.randn(shape, device=bench.device, dtype=torch.float16)
    if not bench.on_gpu:
        return {"device slab": slab}
    pageable = slab.cpu()
    return {"device slab": slab, "pinned": pageable.pin_memory(), "pageable": pageable}


class Pipeline:
    """Batches of prompts, one click on a different image each, with two batches in flight.

    While one batch is decoded, the next one's embeddings are gathered and the last one's masks are copied to the host,
    each on a stream of its own.
    """

    @torch.inference_mode()
    def __init__(self, decode: Callable[..., Tensor], sizes: ModelSizes, rows: int, device: str) -> None:
        self.rows, self.device, self.steps = rows, device, 0
        shape = (rows, sizes.channels, sizes.grid_size, sizes.grid_size)
        self.embeddings = [torch.zeros(shape, device=device, dtype=torch.float16) for _ in range(2)]
        _, *prompt = decoder_inputs(sizes, rows, 1, device)
        self.runs = [replayed(decode, device, embeddings, *prompt) for embeddings in self.embeddings]
        answer = self.runs[0]()
        self.masks = [torch.empty(answer.shape, dtype=answer.dtype, pin_memory=device == "cuda") for _ in range(2)]
        self.random = np.random.default_rng(0)
        if device == "cuda":
            self.inward, self.outward = torch.cuda.Stream(), torch.cuda.Stream()
            self.gathered, self.decoded, self.copied = ([torch.cuda.Event() for _ in range(2)] for _ in range(3))

    def gather(self, place: Tensor, turn: int) -> None:
        """Fill a batch with embeddings from random slots."""
        target = self.embeddings[turn]
        if place.device == target.device:
            slots = torch.randint(len(place), (self.rows,), device=place.device)
            torch.index_select(place, 0, slots, out=target)
            return
        for row, slot in enumerate(self.random.integers(len(place), size=self.rows).tolist()):
            target[row].copy_(place[slot], non_blocking=True)

    def step(self, place: Tensor) -> None:
        """Start one batch. On a GPU it finishes while later batches are in flight."""
        turn, self.steps = self.steps % 2, self.steps + 1
        if self.device != "cuda":
            self.gather(place, turn)
            self.masks[turn].copy_(self.runs[turn]())
            return
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(self.inward):
            self.inward.wait_event(self.decoded[turn])
            self.gather(place, turn)
            self.gathered[turn].record(self.inward)
        computing.wait_event(self.gathered[turn])
        computing.wait_event(self.copied[turn])
        answer = self.runs[turn]()
        self.decoded[turn].record(computing)
        with torch.cuda.stream(self.outward):
            self.outward.wait_event(self.decoded[turn])
            self.masks[turn].copy_(answer, non_blocking=True)
            self.copied[turn].record(self.outward)
