"""The use case of headsets: frames and gaze samples in, the mask of what the person looks at out."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from samserve.domain import homography as plane
from samserve.domain.errors import InvalidPrompt, RetryLater, SamserveError
from samserve.domain.gaze.attention import Attention, Look, LookKind
from samserve.domain.gaze.one_euro import OneEuroFilter, OneEuroParameters
from samserve.domain.gaze.stream import GazeCounts, GazeOptions, GazeSample, GazeState
from samserve.domain.gaze.viewing import Viewing
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.low_res_masks import LowResMask, contains, overlap, seen_from, visible
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import Mask, upsample_mask
from samserve.domain.prompts import CoordinateSpace, Prompt, batch_prompts
from samserve.gaze_frames import GazeFrame, GazeFrames, Keyframe, View
from samserve.ports import GazeObserver, MaskDecoder, MaskWarper

R = TypeVar("R")

_MAX_WAITING_REFUSALS = 64
"""A client that sends nothing but faults and reads nothing is told of the last so many."""

_SAME_OBJECT_OVERLAP = 0.5


class MakeFrames(Protocol):
    """Makes the `GazeFrames` of a session, for it to be told of what is refused and what fails."""

    def __call__(
        self, *, report: Callable[[int, SamserveError], None], fail: Callable[[BaseException], None]
    ) -> GazeFrames: ...


@dataclass(frozen=True, slots=True, eq=False)
class GazeAnswer(Generic[R]):
    """What became of one sample.

    Attributes:
        mask: in the form of the session's `render`; None where the client has it already, or there is none.
        point: the filtered gaze in the stream's coordinate space.
        frame_sequence: of the frame that mask and point lie on.
    """

    sample: GazeSample
    state: GazeState
    object_id: int
    mask: R | None
    point: tuple[float, float] | None
    frame_sequence: int
    keyframe_sequence: int
    keyframe_pending: bool
    counts: GazeCounts
    decode_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A sample or a frame that was refused."""

    sequence: int
    error: SamserveError


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    object_id: int
    decode: int
    keyframe: Keyframe
    point: npt.NDArray[np.float64]
    low_res_mask: LowResMask
    iou_prediction: float


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    sample: GazeSample
    look: Look | None
    arrived: float


class GazeSession(Generic[R]):
    """One person's stream. The latest sample wins.

    Every sample is filtered and classified as it comes, and then waits in a place for one. `answers` takes it from
    there when the one before it has been answered and taken, so at most one decode is in flight, a client that does
    not read has none, and memory does not grow.

    Args:
        make_frames: makes the stream's `GazeFrames`.
        render: turns a mask into what the caller needs, in a worker thread.
        clock: seconds, for what the server itself takes; all else goes by the samples' own time.
    """

    def __init__(
        self,
        options: GazeOptions,
        *,
        make_frames: MakeFrames,
        manifest: ModelManifest,
        mask_decoder: MaskDecoder,
        warper: MaskWarper,
        observer: GazeObserver,
        render: Callable[[Mask], R],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._manifest = manifest
        self._mask_decoder = mask_decoder
        self._warper = warper
        self._observer = observer
        self._render = render
        self._clock = clock
        self._frames = make_frames(report=self._report, fail=self.end)
        self._attention: Attention | None = None
        self._epoch: int | None = None
        self._last_timestamp = -(1 << 63)
        self._waiting: _Waiting | None = None
        self._refusals: deque[Refusal] = deque(maxlen=_MAX_WAITING_REFUSALS)
        self._news = asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None
        self._object: _Object | None = None
        self._objects = 0
        self._shown: tuple[int, int] | None = None
        self._retry_seconds = -math.inf
        self._samples = self._dropped = self._skipped = self._refused = self._decodes = 0

    def frame(self, frame: GazeFrame) -> None:
        """Take a frame in; returns at once. One that is refused is told by `answers`."""
        try:
            self._frames.offer(frame)
        except SamserveError as error:
            self.refuse_frame(frame.sequence, error)

    def refuse_frame(self, sequence: int, error: SamserveError) -> None:
        """Tell by `answers` that a frame could not be read."""
        self._observer.gaze_frame("refused")
        self._report(sequence, error)

    def sample(self, sample: GazeSample) -> None:
        """Take a sample in; returns at once. One that is refused is told by `answers`."""
        arrived = self._clock()
        self._samples += 1
        try:
            look = self._look(sample)
        except InvalidPrompt as error:
            self._refused += 1
            self._observer.gaze_sample("refused")
            self._report(sample.sequence, error)
            return
        if self._waiting is not None:
            self._dropped += 1
            self._observer.gaze_sample("dropped")
        self._waiting = _Waiting(sample, look, arrived)
        self._news.set()

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come: `answers` ends after what waits, or raises the failure."""
        self._ended = True
        self._failure = self._failure or failure
        self._news.set()

    async def close(self) -> None:
        """Stop all work and free what is held."""
        await self._frames.close()
        self._waiting = self._object = None

    async def answers(self) -> AsyncGenerator[GazeAnswer[R] | Refusal, None]:
        """The answers, in the order of the samples. To be taken by one reader."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._refusals:
                yield self._refusals.popleft()
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                yield await self._answer(waiting)
            if self._failure is not None:
                raise self._failure
            if self._ended and self._waiting is None and not self._refusals:
                return

    def _report(self, sequence: int, error: SamserveError) -> None:
        self._refusals.append(Refusal(sequence, error))
        self._news.set()

    def _look(self, sample: GazeSample) -> Look | None:
        if sample.timestamp_nanoseconds <= self._last_timestamp:
            raise InvalidPrompt(
                "sample.timestamp_nanoseconds",
                f"is {sample.timestamp_nanoseconds}, not after the last sample's {self._last_timestamp}",
            )
        if not math.isfinite(sample.confidence):
            raise InvalidPrompt("sample.confidence", f"is {sample.confidence}: it must be finite")
        seen = sample.valid and sample.confidence >= self._options.min_confidence
        if seen:
            for axis, value in (("x", sample.x), ("y", sample.y)):
                if not math.isfinite(value):
                    raise InvalidPrompt(f"sample.{axis}", f"is {value}: it must be finite while valid is true")
        self._last_timestamp = sample.timestamp_nanoseconds
        if self._frames.size is None:
            return None
        if self._attention is None or self._epoch is None:
            self._attention, self._epoch = self._attend(self._frames.size), sample.timestamp_nanoseconds
        point = np.array([sample.x, sample.y], dtype=np.float64) * self._unit(self._frames.size) if seen else None
        if point is not None and not ((point >= 0) & (point <= self._frames.size[::-1])).all():
            point = None
        return self._attention.look((sample.timestamp_nanoseconds - self._epoch) / 1e9, point)

    def _attend(self, size: Size) -> Attention:
        options, viewing = self._options, Viewing(size, self._options.field_of_view_degrees)
        smoothing = options.smoothing
        if smoothing is not None:
            beta = smoothing.beta * viewing.degrees_per_pixel
            smoothing = OneEuroParameters(smoothing.min_cutoff_hertz, beta, smoothing.d_cutoff_hertz)
        return Attention(
            OneEuroFilter(smoothing) if smoothing is not None else None,
            options.classifier(viewing),
            options.hold_seconds,
        )

    async def _answer(self, waiting: _Waiting) -> GazeAnswer[R] | Refusal:
        view, look = self._frames.view, waiting.look
        decode_seconds = 0.0
        try:
            if view is None or look is None:
                state = GazeState.NO_FRAME
            elif look.kind is LookKind.FIXATION and look.point is not None:
                state, decode_seconds = await self._regard(view, plane.apply(view.to_keyframe, look.point))
            else:
                state = _STATES[look.kind]
                if state is GazeState.RELEASED:
                    self._object = None
            mask = None if view is None else await self._show(view)
        except SamserveError as error:
            if isinstance(error, RetryLater):
                self._retry_seconds = self._clock() + error.retry_after_seconds
            self._observer.gaze_sample("failed")
            self._refused += 1
            return Refusal(waiting.sample.sequence, error)
        self._observer.gaze_sample(state.value)
        self._skipped += state is not GazeState.NEW_MASK
        return GazeAnswer(
            sample=waiting.sample,
            state=state,
            object_id=self._object.object_id if self._object is not None else 0,
            mask=mask,
            point=self._outward(look.point) if look is not None and look.point is not None else None,
            frame_sequence=view.sequence if view is not None else 0,
            keyframe_sequence=view.keyframe.sequence if view is not None else 0,
            keyframe_pending=self._frames.pending,
            counts=self._counts(),
            decode_seconds=decode_seconds,
            total_seconds=self._clock() - waiting.arrived,
        )

    async def _regard(self, view: View, point: npt.NDArray[np.float64]) -> tuple[GazeState, float]:
        """The object at a point of the keyframe, and how long decoding it took."""
        keyframe, current = view.keyframe, self._object
        frame = keyframe.embedding.frame
        if not ((point >= 0) & (point <= frame.original_size[::-1])).all():
            return GazeState.NO_FRAME, 0.0
        if current is not None and current.keyframe is keyframe:
            # So near to the last prompt that the decoder would see the same one, mask or not.
            pixel = max(frame.original_size) / len(current.low_res_mask)
            near = np.abs(point - current.point).max() < pixel
            if near or contains(current.low_res_mask, frame, point):
                return GazeState.SAME_OBJECT, 0.0
        if self._clock() < self._retry_seconds:
            return GazeState.HELD, 0.0
        prompt = Prompt(point[None], np.ones(1, dtype=np.int32))
        batch = batch_prompts([prompt], CoordinateSpace.PIXELS, frame, self._manifest.low_res_size)
        decoded = await self._mask_decoder.decode(keyframe.embedding, batch)
        self._decodes += 1
        # Of whole, part and subpart the most certain one that the gaze is in.
        low_res_masks, ious = decoded.low_res_masks[0, 1:], decoded.iou_predictions[0, 1:]
        hit = np.array([contains(low_res_mask, frame, point) for low_res_mask in low_res_masks])
        best = int(np.argmax(np.where(hit | ~hit.any(), ious, -np.inf)))
        # A copy, because a view would keep all four masks.
        chosen = low_res_masks[best].copy()
        object_id = self._identify(keyframe, chosen)
        self._object = _Object(object_id, self._decodes, keyframe, point, chosen, float(ious[best]))
        return GazeState.NEW_MASK, decoded.decode_seconds

    def _identify(self, keyframe: Keyframe, low_res_mask: LowResMask) -> int:
        """The object's number: the last one's where a new keyframe shows the same, else the next."""
        current, previous = self._object, keyframe.previous
        if current is not None and previous is not None and current.keyframe.sequence == previous[0]:
            frame = keyframe.embedding.frame
            before = seen_from(current.low_res_mask, current.keyframe.embedding.frame, previous[1], frame)
            if overlap(before, visible(low_res_mask, frame)) > _SAME_OBJECT_OVERLAP:
                return current.object_id
        self._objects += 1
        return self._objects

    async def _show(self, view: View) -> R | None:
        """The object's mask on this frame, where the client does not have it yet."""
        current = self._object
        if current is None or current.keyframe is not view.keyframe or self._shown == (current.decode, view.sequence):
            return None
        mask = await asyncio.to_thread(self._project, current, view)
        self._shown = (current.decode, view.sequence)
        return mask

    def _project(self, current: _Object, view: View) -> R:
        frame = view.keyframe.embedding.frame
        size = scaled_down(frame.original_size, self._options.max_mask_side)
        if size == frame.original_size and view.to_keyframe is plane.IDENTITY:
            return self._render(upsample_mask(current.low_res_mask, current.iou_prediction, frame))
        return self._render(
            self._warper.warp(
                current.low_res_mask, current.iou_prediction, frame, view.to_keyframe @ _enlarging(size, frame), size
            )
        )

    def _counts(self) -> GazeCounts:
        frames = self._frames
        return GazeCounts(
            self._samples,
            self._dropped,
            self._skipped,
            self._refused,
            self._decodes,
            frames.received,
            frames.dropped,
            frames.keyframes,
        )

    def _unit(self, size: Size) -> npt.NDArray[np.float64]:
        if self._options.coordinate_space is CoordinateSpace.NORMALIZED:
            return np.array([size.width, size.height], dtype=np.float64)
        return np.ones(2)

    def _outward(self, point: npt.NDArray[np.float64]) -> tuple[float, float]:
        assert self._frames.size is not None
        x, y = point / self._unit(self._frames.size)
        return float(x), float(y)


_STATES = {
    LookKind.SACCADE: GazeState.SACCADE,
    LookKind.HELD: GazeState.HELD,
    LookKind.AWAY: GazeState.RELEASED,
}


def scaled_down(size: Size, max_side: int) -> Size:
    """A size with its longest side at most `max_side`; as it is where that is 0."""
    scale = min(1.0, max_side / max(size)) if max_side else 1.0
    return Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))


def _enlarging(size: Size, frame: ImageFrame) -> plane.Homography:
    return plane.scaling(frame.original_size.width / size.width, frame.original_size.height / size.height)
