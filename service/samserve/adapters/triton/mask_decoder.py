"""The mask decoder on Triton."""

import time

import numpy as np
import numpy.typing as npt

from samserve.adapters.triton.model import TritonModel
from samserve.adapters.triton.padding import pad_prompts
from samserve.domain.embedding import Embedding
from samserve.domain.prompts import PromptBatch
from samserve.ports import DecodedMasks

_MASKS = 4
"""Masks of a prompt: SAM's single one and its three."""


class TritonMaskDecoder:
    """Implements `MaskDecoder`. Triton batches what different requests ask for.

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
        """See `MaskDecoder.decode`."""
        started = time.perf_counter()
        padded = pad_prompts(prompts)
        rows = (1, len(padded))
        mask_input = padded.mask_input
        if len(padded) <= len(self._no_masks) and not padded.has_mask_input.any():
            mask_input = self._no_masks[: len(padded)]
        outputs = await self._model.run(
            {
                "image_embeddings": embedding.values[None],
                "point_coords": padded.point_coords[None],
                "point_labels": padded.point_labels[None],
                "mask_input": mask_input[None],
                "has_mask_input": padded.has_mask_input[None],
            },
            {
                "low_res_masks": ((*rows, _MASKS, *self._mask_shape), np.float32),
                "iou_predictions": ((*rows, _MASKS), np.float32),
            },
        )
        masks, scores = (outputs[name][0, : len(prompts)] for name in ("low_res_masks", "iou_predictions"))
        return DecodedMasks(masks, scores, 0.0, time.perf_counter() - started)
