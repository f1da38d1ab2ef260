"""From where an embedding lies to masks on the host: what a prompt costs beside the decoder."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.modes import replayed
from modeling.decoder_graph import MaskDecoderGraph
from modeling.prompts import NOT_A_POINT

SLOTS = 256
"""Embeddings in each place: of SAM's size 512 MiB, which no cache of a GPU holds."""
ROWS = (8, 16, 64)


@torch.inference_mode()
def measure_sources(bench: Bench, decoder: MaskDecoderGraph) -> None:
    """Gather embeddings, decode one prompt of each, bring the masks to the host; each source and each output alone."""
    slots, row_counts = (SLOTS, ROWS) if bench.on_gpu else (4, (2,))
    places = embedding_places(bench, decoder, slots)
    sizes = decoder.sizes
    for rows in row_counts:
        batch = Batch(decoder, rows, bench.device)
        for source, place in places.items():
            embedding_bytes = float(rows * place[0].numel() * 2)
            bench.time(
                f"gather, {source}", lambda place=place, batch=batch: lambda: batch.gather(place),
                shapes={"rows": rows}, precision="fp16", seconds=0.2,
                work={"prompts": float(rows), "bytes": embedding_bytes},
            )  # fmt: skip
            for output, masks in OUTPUTS.items():
                nbytes = rows * sizes.low_res_size**2 * masks.count * masks.itemsize

                def task(batch: "Batch" = batch, place: Tensor = place, masks: "Masks" = masks) -> Callable[[], Any]:
                    return batch.way(place, masks)

                bench.time(
                    f"gather, decode, masks to the host: {source}, {output}", task,
                    shapes={"rows": rows}, precision="fp16", seconds=0.2, work={"prompts": float(rows)},
                    bytes_in_per_prompt=embedding_bytes / rows, bytes_out_per_prompt=nbytes / rows,
                )  # fmt: skip


class Masks:
    """Which of the four masks leave the device, and in which type."""

    def __init__(self, dtype: torch.dtype, first: int, count: int) -> None:
        self.dtype, self.first, self.count = dtype, first, count
        self.itemsize = dtype.itemsize

    def chosen(self, low_res_masks: Tensor) -> Tensor:
        """Of `[B, P, 4, M, M]`."""
        return low_res_masks[:, :, self.first : self.first + self.count].to(self.dtype)


OUTPUTS: Mapping[str, Masks] = {
    "4 masks, fp32": Masks(torch.float32, 0, 4),
    "3 masks, fp16": Masks(torch.float16, 1, 3),
    "1 mask, fp16": Masks(torch.float16, 0, 1),
}


def embedding_places(bench: Bench, decoder: MaskDecoderGraph, slots: int) -> dict[str, Tensor]:
    """The same embeddings half `[slots, C, G, G]` on the device, in pinned and in pageable memory of the host."""
    sizes = decoder.sizes
    shape = (slots, sizes.channels, sizes.grid_size, sizes.grid_size)
    slab = torch.randn(shape, device=bench.device, dtype=torch.float16)
    places = {"device slab": slab, "pageable": slab.cpu()}
    if bench.on_gpu:
        places["pinned"] = places["pageable"].pin_memory()
    return places


class Batch:
    """A decoder captured for so many rows, each an image of its own with one click, and its inputs on the device."""

    @torch.inference_mode()
    def __init__(self, decoder: MaskDecoderGraph, rows: int, device: str) -> None:
        sizes = decoder.sizes
        self.decoder, self.rows, self.device = decoder, rows, device
        self.embeddings = torch.zeros(
            rows, sizes.channels, sizes.grid_size, sizes.grid_size, device=device, dtype=torch.float16
        )
        labels = torch.tensor([1, NOT_A_POINT], dtype=torch.int32, device=device)
        self.prompt = (
            torch.rand(rows, 1, 2, 2, device=device) * sizes.image_size,
            labels.expand(rows, 1, 2).contiguous(),
            torch.zeros(rows, 1, sizes.low_res_size, sizes.low_res_size, device=device),
            torch.zeros(rows, 1, device=device),
        )
        self.generator = torch.Generator().manual_seed(0)

    def gather(self, place: Tensor) -> None:
        """Fill the batch with embeddings from slots that nobody chose in order."""
        slots = torch.randint(len(place), (self.rows,), generator=self.generator)
        if place.device == self.embeddings.device:
            torch.index_select(place, 0, slots.to(place.device, non_blocking=True), out=self.embeddings)
            return
        for row, slot in enumerate(slots.tolist()):
            self.embeddings[row].copy_(place[slot], non_blocking=True)

    def way(self, place: Tensor, masks: Masks) -> Callable[[], Any]:
        """One batch from its embeddings' place to masks in pinned memory of the host."""

        def decode(*inputs: Tensor) -> Tensor:
            return masks.chosen(self.decoder(*inputs)[0])

        run = replayed(decode, self.device, self.embeddings, *self.prompt)
        answer = run()
        host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=self.device == "cuda")

        def once() -> Tensor:
            self.gather(place)
            return host.copy_(run(), non_blocking=True)

        return once
