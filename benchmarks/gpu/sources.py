"""From where an embedding lies to masks on the host: what a prompt costs beside the decoder."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.fused_decoder import FusedDecoderGraph
from benchmarks.gpu.modes import replayed
from benchmarks.gpu.prompt_inputs import decoder_inputs
from modeling.decoder_graph import MaskDecoderGraph

SLOTS = 256
"""Embeddings in each place: of SAM's size 512 MiB, which no cache of a GPU holds."""
ROWS = (64, 16)


@torch.inference_mode()
def measure_sources(bench: Bench, decoder: FusedDecoderGraph) -> None:
    """Gather embeddings, decode one prompt of each, bring the masks to the host; each source and each output alone."""
    slots, row_counts = (SLOTS, ROWS) if bench.on_gpu else (4, (1,))
    places = embedding_places(bench, decoder, slots)
    outputs = OUTPUTS if bench.on_gpu else {"1 mask, fp16": OUTPUTS["1 mask, fp16"]}
    for rows in row_counts:
        for output, masks in outputs.items():
            decoder.first, decoder.count, decoder.mask_dtype = masks
            make = functools.partial(Pipeline, decoder, rows, bench.device)
            pipeline = bench.attempt({"name": output, "shapes": {"rows": rows}}, make)
            if pipeline is None:
                continue
            bytes_out = masks.count * masks.dtype.itemsize * decoder.sizes.low_res_size**2
            for source, place in places.items():
                _measure(bench, pipeline, source, place, output, bytes_out)


def _measure(bench: Bench, pipeline: "Pipeline", source: str, place: Tensor, output: str, bytes_out: int) -> None:
    rows, bytes_in = pipeline.rows, place[0].numel() * place.itemsize
    if output.startswith("1"):
        bench.time(
            f"gather, {source}", lambda: lambda: pipeline.gather(place, 0), shapes={"rows": rows}, precision="fp16",
            seconds=0.2, work={"prompts": float(rows), "bytes": float(rows * bytes_in)},
        )  # fmt: skip
    bench.time(
        f"gather, decode, masks to the host: {source}, {output}", lambda: lambda: pipeline.step(place),
        shapes={"rows": rows}, precision="fp16", seconds=0.2, work={"prompts": float(rows)},
        bytes_in_per_prompt=bytes_in, bytes_out_per_prompt=bytes_out,
    )  # fmt: skip


class Masks(NamedTuple):
    """Which of the four masks leave the device, and in which type."""

    first: int
    count: int
    dtype: torch.dtype


OUTPUTS: Mapping[str, Masks] = {
    "4 masks, fp32": Masks(0, 4, torch.float32),
    "3 masks, fp16": Masks(1, 3, torch.float16),
    "1 mask, fp16": Masks(0, 1, torch.float16),
}


def embedding_places(bench: Bench, decoder: MaskDecoderGraph, slots: int) -> dict[str, Tensor]:
    """The same embeddings half `[slots, C, G, G]` on the device, in pinned and in pageable memory of the host."""
    sizes = decoder.sizes
    shape = (slots, sizes.channels, sizes.grid_size, sizes.grid_size)
    slab = torch.randn(shape, device=bench.device, dtype=torch.float16)
    if not bench.on_gpu:
        return {"device slab": slab}
    pageable = slab.cpu()
    return {"device slab": slab, "pinned": pageable.pin_memory(), "pageable": pageable}


class Pipeline:
    """Batches of prompts, each an image of its own with one click, two of them under way at once.

    While one batch is decoded, the next one's embeddings are gathered and the last one's masks are copied to the host,
    each on a stream of its own.
    """

    @torch.inference_mode()
    def __init__(self, decoder: FusedDecoderGraph, rows: int, device: str) -> None:
        sizes = decoder.sizes
        self.rows, self.device, self.steps = rows, device, 0
        shape = (rows, sizes.channels, sizes.grid_size, sizes.grid_size)
        self.embeddings = [torch.zeros(shape, device=device, dtype=torch.float16) for _ in range(2)]
        _, *prompt = decoder_inputs(sizes, rows, 1, device)
        self.runs = [
            replayed(lambda *inputs: decoder(*inputs)[0], device, embeddings, *prompt) for embeddings in self.embeddings
        ]
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
        """Begin one batch; on a GPU it ends while later ones are under way."""
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
