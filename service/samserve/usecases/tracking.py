"""The use case of videos: track objects from frame to frame."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

import numpy as np
import numpy.typing as npt

from samserve.domain.embedding import Embedding
from samserve.domain.errors import InvalidImage, InvalidPrompt, within
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import ImageId
from samserve.domain.low_res_masks import LowResMask, visible
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK, upsample_mask
from samserve.domain.prompts import (
    CoordinateSpace,
    ObjectPrompt,
    PromptLimits,
    batch_prompts,
    check_prompt,
    check_prompt_inside,
    in_pixels,
)
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.domain.tracking import (
    TrackingLimits,
    appearance,
    choose,
    following_prompt,
    keep_connected,
    named_by,
)
from samserve.usecases.embedder import EmbeddingResult, ImageEmbedder, ImageInput
from samserve.usecases.ports import DecodedMasks, MaskDecoder, MaskRenderer
from samserve.usecases.timings import Stage, StageTimings


class TrackState(Enum):
    """State of an object, as documented for the API's `TrackState`."""

    STARTED = "started"
    TRACKED = "tracked"
    LOST = "lost"
    FOUND = "found"


@dataclass(frozen=True, slots=True, eq=False)
class TrackQuery:
    """One frame.

    Attributes:
        sequence: the client's number; rises.
        prompts: by object id, of objects that start, or start anew, on this frame; in the request's order.
        removed: ids of objects that are followed no longer.
    """

    sequence: int
    image: ImageInput
    prompts: Mapping[int, ObjectPrompt] = field(default_factory=dict)
    removed: Sequence[int] = ()
    coordinate_space: CoordinateSpace = CoordinateSpace.PIXELS
    mask_format: MaskFormat = MaskFormat.COCO_RLE


@dataclass(frozen=True, slots=True, eq=False)
class TrackUpdate:
    """One object on one frame.

    Attributes:
        mask: None while it is lost.
        overlap: IoU of the best candidate with the object's last mask; 1 where it starts.
    """

    object_id: int
    state: TrackState
    mask: RenderedMask | None
    overlap: float


@dataclass(frozen=True, slots=True, eq=False)
class TrackingResult:
    """All objects on one frame, in the order in which they were started, and the timings."""

    image_id: ImageId
    objects: list[TrackUpdate]
    timings: StageTimings


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    low_res_mask: LowResMask
    appearance: npt.NDArray[np.float32]
    started_with: float
    areas: tuple[int, ...]
    lost: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    object_id: int
    state: TrackState
    low_res_mask: LowResMask | None
    appearance: npt.NDArray[np.float32] | None
    iou_prediction: float
    overlap: float


class TrackingSession:
    """One video. Frames are processed in order, one at a time. A rejected frame changes nothing.

    Args:
        max_objects: that are followed at a time.
    """

    def __init__(
        self,
        *,
        tenant: str,
        manifest: ModelManifest,
        embedder: ImageEmbedder,
        mask_decoder: MaskDecoder,
        mask_renderer: MaskRenderer,
        prompt_limits: PromptLimits,
        max_objects: int,
        limits: TrackingLimits | None = None,
    ) -> None:
        self._tenant = tenant
        self._manifest = manifest
        self._embedder = embedder
        self._mask_decoder = mask_decoder
        self._mask_renderer = mask_renderer
        self._prompt_limits = prompt_limits
        self._max_objects = max_objects
        self._limits = limits or TrackingLimits()
        self._tracks: dict[int, _Track] = {}
        self._size: Size | None = None
        self._last_sequence = -1

    async def track(self, query: TrackQuery) -> TrackingResult:
        """Track the objects to the next frame. When no objects are left, the result has none.

        Raises:
            InvalidPrompt: a prompt is malformed or outside the image, there are too many objects, or no prompt has
                started one yet.
            InvalidImage: the file cannot be served, is of another size than the first, or its number does not rise.
            Also what `ImageEmbedder.embed` and `MaskDecoder.decode` raise.
        """
        self._check(query)
        kept = {name: track for name, track in self._tracks.items() if name not in query.removed}
        if not kept and not query.prompts:
            return await self._pass(query)
        embedded = await self._embedder.embed(query.image, self._tenant, partial(self._check_size, query))
        frame = embedded.embedding.frame
        prompts = {name: following_prompt(track.low_res_mask, frame) for name, track in kept.items()}
        prompts |= {
            name: in_pixels(prompt, query.coordinate_space, frame.original_size)
            for name, prompt in query.prompts.items()
        }
        asked = {name: prompt for name, prompt in prompts.items() if prompt is not None}
        decoded = await self._decode(embedded, list(asked.values()))
        started = time.perf_counter()
        rows = {name: row for row, name in enumerate(asked)}
        steps = [
            self._start(name, asked[name], decoded, rows[name], embedded.embedding)
            if name in query.prompts
            else self._follow(name, kept[name], decoded, rows.get(name), embedded.embedding)
            for name in prompts
        ]
        objects = await asyncio.to_thread(self._render_all, steps, frame, query.mask_format)
        # Assigned last, so that a frame that fails part-way changes nothing.
        self._last_sequence, self._size = query.sequence, frame.original_size
        self._tracks = {step.object_id: self._continued(step, kept.get(step.object_id), frame) for step in steps}
        rest = StageTimings({Stage.POST_PROCESS: time.perf_counter() - started})
        return TrackingResult(embedded.image_id, objects, embedded.timings + decoded.timings + rest)

    async def _pass(self, query: TrackQuery) -> TrackingResult:
        """Process a frame without tracked objects."""
        image_id = await self._embedder.inspect(query.image, partial(self._check_size, query))
        self._last_sequence, self._tracks = query.sequence, {}
        return TrackingResult(image_id, [], StageTimings())

    def _check(self, query: TrackQuery) -> None:
        if query.sequence <= self._last_sequence:
            raise InvalidImage(
                "sequence", f"must be above the last frame's {self._last_sequence}, got {query.sequence}"
            )
        for index, prompt in enumerate(query.prompts.values()):
            with within(f"prompts[{index}].prompt"):
                check_prompt(prompt, self._prompt_limits, self._manifest.low_res_size)
        names = set(self._tracks).difference(query.removed) | set(query.prompts)
        if not names and self._size is None:
            raise InvalidPrompt("prompts", "empty, and no object is tracked yet; give at least one prompt")
        if len(names) > self._max_objects:
            limit = self._max_objects
            raise InvalidPrompt(
                "prompts", f"would track {len(names)} objects, the limit is {limit}; remove some objects first"
            )

    def _check_size(self, query: TrackQuery, size: Size) -> None:
        if self._size is not None and size != self._size:
            raise InvalidImage(
                "frame",
                f"must be {self._size.width} x {self._size.height} like the stream's first frame, got {size.width} x"
                f" {size.height}; open a new stream for another size",
            )
        for index, prompt in enumerate(query.prompts.values()):
            with within(f"prompts[{index}].prompt"):
                check_prompt_inside(prompt, query.coordinate_space, size)

    async def _decode(self, embedded: EmbeddingResult, prompts: list[ObjectPrompt]) -> DecodedMasks:
        low_res_size = self._manifest.low_res_size
        if not prompts:
            nothing = np.zeros((0, 4, low_res_size, low_res_size), np.float32)
            return DecodedMasks(nothing, np.zeros((0, 4), np.float32), StageTimings())
        batch = batch_prompts(prompts, CoordinateSpace.PIXELS, embedded.embedding.frame, low_res_size)
        return await self._mask_decoder.decode(embedded.embedding, batch)

    def _start(self, name: int, prompt: ObjectPrompt, decoded: DecodedMasks, row: int, embedding: Embedding) -> _Step:
        ious = decoded.iou_predictions[row]
        # A single point is ambiguous, so take the mask with the highest predicted IoU; otherwise SAM's single mask.
        best = 1 + int(np.argmax(ious[MULTIMASK])) if prompt.is_ambiguous else 0
        # A copy, because a view would keep the masks of all objects.
        candidate = decoded.low_res_masks[row, best]
        chosen = keep_connected(candidate, named_by(prompt, len(candidate), embedding.frame))
        return _Step(name, TrackState.STARTED, chosen, appearance(embedding, chosen), float(ious[best]), 1.0)

    def _follow(self, name: int, track: _Track, decoded: DecodedMasks, row: int | None, embedding: Embedding) -> _Step:
        if row is None:
            return _Step(name, TrackState.LOST, None, None, 0.0, 0.0)
        last, ious = visible(track.low_res_mask, embedding.frame), decoded.iou_predictions[row]
        candidates = np.stack([keep_connected(candidate, last) for candidate in decoded.low_res_masks[row]])
        limits = self._limits
        best, overlap = choose(
            candidates, ious, track.low_res_mask, embedding.frame, track.started_with, track.areas, limits
        )
        if best is None:
            return _Step(name, TrackState.LOST, None, None, 0.0, overlap)
        chosen = candidates[best].copy()
        looks = appearance(embedding, chosen)
        if looks @ track.appearance < limits.min_likeness:
            return _Step(name, TrackState.LOST, None, None, 0.0, overlap)
        state = TrackState.FOUND if track.lost else TrackState.TRACKED
        return _Step(name, state, chosen, looks, float(ious[best]), overlap)

    def _render_all(self, steps: list[_Step], frame: ImageFrame, mask_format: MaskFormat) -> list[TrackUpdate]:
        objects = []
        for step in steps:
            rendered = None
            if step.low_res_mask is not None:
                mask = upsample_mask(step.low_res_mask, step.iou_prediction, frame)
                rendered = self._mask_renderer.render(mask, mask_format)
            objects.append(TrackUpdate(step.object_id, step.state, rendered, step.overlap))
        return objects

    def _continued(self, step: _Step, track: _Track | None, frame: ImageFrame) -> _Track:
        if step.low_res_mask is None or step.appearance is None:
            assert track is not None
            return replace(track, lost=True)
        area = int(np.count_nonzero(visible(step.low_res_mask, frame)))
        if step.state is TrackState.STARTED or track is None:
            return _Track(step.low_res_mask, step.appearance, step.iou_prediction, (area,))
        areas = (*track.areas, area)[-self._limits.growth_frames :]
        return _Track(step.low_res_mask, step.appearance, track.started_with, areas)
