"""Edge detection from the masks of a grid of points."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.domain.candidates import pixel_box
from samserve.domain.edges import thin, trace_outline
from samserve.domain.geometry import ImageFrame
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK, upsample_mask
from samserve.domain.nms import box_nms
from samserve.domain.point_grids import point_grid
from samserve.domain.prompts import click_prompts
from samserve.usecases.embedder import EmbeddingResult, ImageEmbedder, ImageInput
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import MaskDecoder
from samserve.usecases.timings import Stage, StageTimings

_POINTS_PER_SIDE = 16
_POINTS_PER_BATCH = 32
_BOX_NMS_THRESH = 0.7
"""The grid of SAM's paper, which gives 768 masks, and the threshold of SAM's mask generator."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectedEdges:
    """Edges, uint8 `[H, W]`, 255 for the strongest edge, and the timings."""

    embedded: EmbeddingResult
    edges: npt.NDArray[np.uint8]
    timings: StageTimings


class EdgeDetector:
    """Detects edges.

    Args:
        requests: admission of requests of every kind.
        generations: admission of those that ask a grid of points.
    """

    def __init__(
        self,
        *,
        manifest: ModelManifest,
        embedder: ImageEmbedder,
        mask_decoder: MaskDecoder,
        requests: Admission,
        generations: Admission,
    ) -> None:
        self._manifest = manifest
        self._embedder = embedder
        self._mask_decoder = mask_decoder
        self._requests = requests
        self._generations = generations

    async def detect(self, image: ImageInput, tenant: str) -> DetectedEdges:
        """Detect the edges of an image.

        Raises:
            CapacityExceeded: too many requests are in flight.
            Also what `ImageEmbedder.embed` and `MaskDecoder.decode` raise.
        """
        with self._requests.admit(), self._generations.admit():
            embedded = await self._embedder.embed(image, tenant)
            frame = embedded.embedding.frame
            points = point_grid(_POINTS_PER_SIDE) * (frame.original_size.width, frame.original_size.height)
            tracer = _Tracer(frame)
            decoding = StageTimings()
            started = time.perf_counter()
            for start in range(0, len(points), _POINTS_PER_BATCH):
                batch = points[start : start + _POINTS_PER_BATCH]
                prompts = click_prompts(batch, frame, self._manifest.low_res_size)
                decoded = await self._mask_decoder.decode(embedded.embedding, prompts)
                decoding += decoded.timings
                masks, ious = decoded.low_res_masks[:, MULTIMASK], decoded.iou_predictions[:, MULTIMASK]
                for low_res_masks, iou_predictions in zip(masks, ious, strict=True):
                    await asyncio.to_thread(tracer.add, low_res_masks, iou_predictions)
            for index in tracer.chosen():
                await asyncio.to_thread(tracer.trace, index)
            edges = await asyncio.to_thread(tracer.edges)
            spent = time.perf_counter() - started
            rest = StageTimings({Stage.POST_PROCESS: max(0.0, spent - sum(decoding.seconds.values()))})
            return DetectedEdges(embedded, edges, embedded.timings + decoding + rest)


class _Tracer:
    """Stores the masks of one image as half-precision logits until duplicates are known."""

    def __init__(self, frame: ImageFrame) -> None:
        self._frame = frame
        self._low_res_masks: list[npt.NDArray[np.float16]] = []
        self._boxes: list[npt.NDArray[np.float64]] = []
        self._ious: list[float] = []
        self._edges = np.zeros(frame.original_size, dtype=np.float32)

    def add(self, low_res_masks: npt.NDArray[np.float32], iou_predictions: npt.NDArray[np.float32]) -> None:
        """Add the masks of one point: logits `[K, M, M]` and predicted IoUs `[K]`."""
        limit = np.finfo(np.float16).max
        for low_res_mask, iou in zip(low_res_masks, iou_predictions, strict=True):
            mask = upsample_mask(low_res_mask, float(iou), self._frame)
            if mask.window.any():
                self._low_res_masks.append(np.clip(low_res_mask, -limit, limit).astype(np.float16))
                self._boxes.append(pixel_box(mask))
                self._ious.append(float(iou))

    def chosen(self) -> list[int]:
        """The masks without duplicates."""
        return box_nms(np.array(self._boxes).reshape(-1, 4), np.array(self._ious), _BOX_NMS_THRESH)

    def trace(self, index: int) -> None:
        """Add the outline of one mask."""
        low_res_mask = self._low_res_masks[index].astype(np.float32)
        trace_outline(self._edges, upsample_mask(low_res_mask, self._ious[index], self._frame), self._frame)

    def edges(self) -> npt.NDArray[np.uint8]:
        """The edge map, uint8 `[H, W]`."""
        return np.round(255 * thin(self._edges)).astype(np.uint8)
