"""The gaze target: the object under the gaze, its number, and its mask on the current frame."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samserve.domain import homography as plane
from samserve.domain.camera_motion import warp_mask
from samserve.domain.errors import TransientFailure
from samserve.domain.gaze.choice import looked_at
from samserve.domain.gaze.stream import GazeState
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.low_res_masks import LowResMask, contains, overlap, seen_from, visible
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK, upsample_mask
from samserve.domain.prompts import click_prompts
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.usecases.gaze.frames import Keyframe, View
from samserve.usecases.ports import MaskDecoder, MaskRenderer
from samserve.usecases.timings import StageTimings

_SAME_OBJECT_OVERLAP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    object_id: int
    decode: int
    keyframe: Keyframe
    point: npt.NDArray[np.float64]
    low_res_mask: LowResMask
    iou_prediction: float


class GazeObjects:
    """The object that one person looks at, and the previous ones.

    Args:
        max_mask_side: masks are scaled down to this longest side; 0 leaves them.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        manifest: ModelManifest,
        mask_decoder: MaskDecoder,
        mask_renderer: MaskRenderer,
        mask_format: MaskFormat,
        max_mask_side: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manifest = manifest
        self._mask_decoder = mask_decoder
        self._mask_renderer = mask_renderer
        self._mask_format = mask_format
        self._max_mask_side = max_mask_side
        self._clock = clock
        self.decodes = 0
        self._current: _Object | None = None
        self._numbered = 0
        self._shown: tuple[int, int] | None = None
        self._retry_seconds = -math.inf

    @property
    def object_id(self) -> int:
        """Number of the current object; 0 for none."""
        return self._current.object_id if self._current is not None else 0

    def release(self) -> None:
        """Release the object: the person looks at nothing."""
        self._current = None

    async def regard(self, view: View, point: npt.NDArray[np.float64]) -> tuple[GazeState, StageTimings]:
        """Make the object at a point of the frame the one looked at.

        Returns:
            What became of it, and the time in the decoder.

        Raises:
            What `MaskDecoder.decode` raises. A decoder that asks for time gets it: until then the object is held.
        """
        keyframe, current = view.keyframe, self._current
        point = plane.apply(view.to_keyframe, point)
        frame = keyframe.embedding.frame
        if not ((point >= 0) & (point <= frame.original_size[::-1])).all():
            return GazeState.NO_FRAME, StageTimings()
        if current is not None and current.keyframe is keyframe:
            # The gaze is so close to the last prompt that the decoder would give the same mask.
            pixel = max(frame.original_size) / len(current.low_res_mask)
            near = np.abs(point - current.point).max() < pixel
            if near or contains(current.low_res_mask, frame, point):
                return GazeState.SAME_OBJECT, StageTimings()
        if self._clock() < self._retry_seconds:
            return GazeState.HELD, StageTimings()
        click = click_prompts([point], frame, self._manifest.low_res_size)
        try:
            decoded = await self._mask_decoder.decode(keyframe.embedding, click)
        except TransientFailure as error:
            self._retry_seconds = self._clock() + error.retry_after_seconds
            raise
        self.decodes += 1
        low_res_masks, ious = decoded.low_res_masks[0, MULTIMASK], decoded.iou_predictions[0, MULTIMASK]
        before = self._before(keyframe)
        best = looked_at(low_res_masks, ious, frame, point, before)
        # A copy, because a view would keep all four masks in memory.
        chosen = low_res_masks[best].copy()
        object_id = self._identify(before, chosen, frame)
        self._current = _Object(object_id, self.decodes, keyframe, point, chosen, float(ious[best]))
        return GazeState.NEW_MASK, decoded.timings

    def _before(self, keyframe: Keyframe) -> npt.NDArray[np.bool_] | None:
        """The mask on the previous keyframe, mapped to this one."""
        current, previous = self._current, keyframe.previous
        if current is None or previous is None or current.keyframe.sequence != previous[0]:
            return None
        last = current.keyframe.embedding.frame
        return seen_from(current.low_res_mask, last, previous[1], keyframe.embedding.frame)

    def _identify(self, before: npt.NDArray[np.bool_] | None, low_res_mask: LowResMask, frame: ImageFrame) -> int:
        """The object's number: the previous one if a new keyframe shows the same object, otherwise the next."""
        if before is not None and overlap(before, visible(low_res_mask, frame)) > _SAME_OBJECT_OVERLAP:
            return self.object_id
        self._numbered += 1
        return self._numbered

    async def show(self, view: View) -> RenderedMask | None:
        """The object's mask on this frame, or None if the client already has it."""
        current = self._current
        if current is None or current.keyframe is not view.keyframe or self._shown == (current.decode, view.sequence):
            return None
        mask = await asyncio.to_thread(self._project, current, view)
        self._shown = (current.decode, view.sequence)
        return mask

    def _project(self, current: _Object, view: View) -> RenderedMask:
        frame = view.keyframe.embedding.frame
        size = scaled_down(frame.original_size, self._max_mask_side)
        if size == frame.original_size and view.to_keyframe is plane.IDENTITY:
            mask = upsample_mask(current.low_res_mask, current.iou_prediction, frame)
        else:
            to_keyframe = view.to_keyframe @ _enlarging(size, frame)
            mask = warp_mask(current.low_res_mask, current.iou_prediction, frame, to_keyframe, size)
        return self._mask_renderer.render(mask, self._mask_format)


def scaled_down(size: Size, max_side: int) -> Size:
    """Scale a size down to a longest side of at most `max_side`; 0 keeps it."""
    scale = min(1.0, max_side / max(size)) if max_side else 1.0
    return Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))


def _enlarging(size: Size, frame: ImageFrame) -> plane.Homography:
    return plane.scaling(frame.original_size.width / size.width, frame.original_size.height / size.height)
