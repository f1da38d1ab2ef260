"""The mask decoder on Triton."""

import time

import numpy as np
import numpy.typing as npt

from samserve.adapters.triton.model import TritonModel
from samserve.adapters.triton.padding import pad_prompts
from samserve.domain.embedding import Embedding
from samserve.domain.prompts import PROMPTS_PER_DECODE, PromptBatch
from samserve.usecases.ports import DecodedMasks
from samserve.usecases.timings import Stage, StageTimings

_MASKS = 4
"""Number of masks per prompt: SAM's single mask and its three masks."""


class TritonMaskDecoder:
    """Implements `MaskDecoder`. Triton batches the prompts of different requests.

    Its queue is Triton's, so that queue and computation are one figure: the round trip.

    Args:
        low_res_size: side of the model's low-resolution masks.
        no_masks: float32 zeros `[P, M, M]` in shared memory, for requests of up to P prompts without a mask.
    """

    def __init__(self, model: TritonModel, low_res_size: int, no_masks: npt.NDArray[np.float32] | None = None) -> None:
        self._model = model
        self._mask_shape = (low_res_size, low_res_size)
        self._no_masks = np.zeros((0, *self._mask_shape), np.float32) if no_masks is None else no_masks

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        started = time.perf_counter()
        rows = [await self._decode_row(embedding, row) for row in _rows(prompts)]
        masks, scores = rows[0] if len(rows) == 1 else [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        timings = StageTimings({Stage.QUEUE: 0.0, Stage.MASK_DECODE: time.perf_counter() - started})
        return DecodedMasks(masks, scores, timings)

    async def _decode_row(
        self, embedding: Embedding, prompts: PromptBatch
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        padded = pad_prompts(prompts)
        mask_input = padded.mask_input
        if len(padded) <= len(self._no_masks) and not padded.has_mask_input.any():
            mask_input = self._no_masks[: len(padded)]
        shape = (1, len(padded), _MASKS)
        outputs = await self._model.run(
            {
                "image_embeddings": embedding.values[None],
                "point_coords": padded.point_coords[None],
                "point_labels": padded.point_labels[None],
                "mask_input": mask_input[None],
                "has_mask_input": padded.has_mask_input[None],
            },
            {"low_res_masks": ((*shape, *self._mask_shape), np.float32), "iou_predictions": (shape, np.float32)},
        )
        return outputs["low_res_masks"][0, : len(prompts)], outputs["iou_predictions"][0, : len(prompts)]


def _rows(prompts: PromptBatch) -> list[PromptBatch]:
    """Split the prompts into rows of the largest allowed size."""
    return [
        PromptBatch(
            prompts.point_coords[start:stop],
            prompts.point_labels[start:stop],
            prompts.mask_input[start:stop],
            prompts.has_mask_input[start:stop],
        )
        for start, stop in ((start, start + PROMPTS_PER_DECODE) for start in range(0, len(prompts), PROMPTS_PER_DECODE))
    ]
