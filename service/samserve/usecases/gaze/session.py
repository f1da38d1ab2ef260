"""The use case of gaze streams: frames and gaze samples in, the mask of the object that the person looks at out."""

import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from samserve.domain.errors import InvalidPrompt, SamserveError
from samserve.domain.gaze.attention import Attention, Look, LookKind
from samserve.domain.gaze.one_euro import OneEuroFilter, OneEuroParameters
from samserve.domain.gaze.stream import MAX_SAMPLE_DELAY_NANOSECONDS, GazeOptions, GazeSample, GazeState, GazeTotals
from samserve.domain.gaze.viewing import Viewing
from samserve.domain.geometry import Size
from samserve.domain.prompts import CoordinateSpace
from samserve.domain.rendered_mask import RenderedMask
from samserve.usecases.gaze.frames import GazeFrame, GazeFrames
from samserve.usecases.gaze.target import GazeObjects
from samserve.usecases.mailbox import Mailbox
from samserve.usecases.observers import GazeObserver
from samserve.usecases.timings import Stage, StageTimings


class MakeFrames(Protocol):
    """Creates the `GazeFrames` of a session, with callbacks for rejections and failures."""

    def __call__(
        self, *, report: Callable[[int, SamserveError], None], fail: Callable[[BaseException], None]
    ) -> GazeFrames: ...


@dataclass(frozen=True, slots=True, eq=False)
class GazeResult:
    """Outcome of one sample.

    Attributes:
        mask: None where the client has it already, or there is none.
        point: the filtered gaze in the stream's coordinate space.
        frame_sequence: of the frame that mask and point lie on.
    """

    sample: GazeSample
    state: GazeState
    object_id: int
    mask: RenderedMask | None
    point: tuple[float, float] | None
    frame_sequence: int
    keyframe_sequence: int
    keyframe_pending: bool
    counts: GazeTotals
    timings: StageTimings
    total_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A sample or a frame that was rejected.

    Attributes:
        message: `sample` or `frame`; errors name fields of it. Empty for what is neither.
    """

    message: Literal["sample", "frame", ""]
    sequence: int
    error: SamserveError


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    sample: GazeSample
    look: Look | None
    arrived: float


class GazeSession:
    """One person's gaze stream. A newer sample replaces a waiting one.

    Every sample is filtered and classified as it comes, and then waits in a place for one. `answers` takes it from
    there when the one before it has been answered and taken, so at most one decode is in flight, a client that does
    not read has none, and memory does not grow.

    Args:
        make_frames: makes the stream's `GazeFrames`.
        objects: the stream's own.
        clock: seconds, for what the server itself takes; all else goes by the samples' own time.
    """

    def __init__(
        self,
        options: GazeOptions,
        *,
        make_frames: MakeFrames,
        objects: GazeObjects,
        observer: GazeObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._objects = objects
        self._observer = observer
        self._clock = clock
        self._mailbox: Mailbox[_Waiting, Refusal] = Mailbox()
        self._frames = make_frames(report=partial(self.refuse, "frame"), fail=self.end)
        self._attention: Attention | None = None
        self._epoch: int | None = None
        self._last_timestamp: int | None = None
        self._answering = False
        self._samples = self._dropped = self._skipped = self._refused = 0

    def frame(self, frame: GazeFrame) -> None:
        """Take in a frame; returns at once. `answers` reports a rejection."""
        try:
            self._frames.offer(frame)
        except SamserveError as error:
            self.refuse_frame(frame.sequence, error)

    def refuse_frame(self, sequence: int, error: SamserveError) -> None:
        """Report in `answers` that a frame could not be read."""
        self._observer.gaze_frame("refused")
        self.refuse("frame", sequence, error)

    def sample(self, sample: GazeSample) -> None:
        """Take in a sample; returns at once. `answers` reports a rejection."""
        arrived = self._clock()
        self._samples += 1
        try:
            look = self._look(sample)
        except InvalidPrompt as error:
            self._refused += 1
            self._observer.gaze_sample("refused")
            self.refuse("sample", sample.sequence, error)
            return
        if self._mailbox.latest is not None:
            self._dropped += 1
            self._observer.gaze_sample("dropped")
        self._mailbox.put(_Waiting(sample, look, arrived))

    def refuse(self, message: Literal["sample", "frame", ""], sequence: int, error: SamserveError) -> None:
        """Report in `answers` that a message was rejected."""
        self._mailbox.refuse(Refusal(message, sequence, error))

    def end(self, failure: BaseException | None = None) -> None:
        """End the input: `answers` ends after the waiting samples, or raises the failure."""
        self._mailbox.end(failure)

    @property
    def working(self) -> bool:
        """True while a sample waits for its answer."""
        return self._answering or self._mailbox.latest is not None

    async def close(self) -> None:
        """Stop all work and free all memory."""
        await self._frames.close()
        self._objects.release()

    async def answers(self) -> AsyncGenerator[GazeResult | Refusal, None]:
        """The answers, in the order of the samples. For a single reader."""
        async with aclosing(self._mailbox.read()) as messages:
            async for message in messages:
                if isinstance(message, Refusal):
                    yield message
                    continue
                self._answering = True
                try:
                    answer = await self._answer(message)
                finally:
                    self._answering = False
                yield answer

    def _look(self, sample: GazeSample) -> Look | None:
        set_back = self._is_set_back(sample.timestamp_nanoseconds)
        seen = sample.valid and self._is_certain(sample)
        if seen:
            for axis, value in (("x", sample.x), ("y", sample.y)):
                if not math.isfinite(value):
                    raise InvalidPrompt(axis, f"must be finite if valid is true, got {value}")
        self._last_timestamp = sample.timestamp_nanoseconds
        if self._frames.size is None:
            return None
        if self._attention is None or self._epoch is None:
            self._attention, self._epoch = self._attend(self._frames.size), sample.timestamp_nanoseconds
        elif set_back:
            self._attention.restart_clock()
            self._epoch = sample.timestamp_nanoseconds
        point = np.array([sample.x, sample.y], dtype=np.float64) * self._unit(self._frames.size) if seen else None
        if point is not None and not ((point >= 0) & (point <= self._frames.size[::-1])).all():
            point = None
        return self._attention.look((sample.timestamp_nanoseconds - self._epoch) / 1e9, point)

    def _is_set_back(self, timestamp_nanoseconds: int) -> bool:
        """True if the device's clock was set back since the last sample, which does not end the stream.

        Raises:
            InvalidPrompt: the sample is only a little older than the last one, which has overtaken it.
        """
        last = self._last_timestamp
        if last is None or timestamp_nanoseconds > last:
            return False
        if last - timestamp_nanoseconds > MAX_SAMPLE_DELAY_NANOSECONDS:
            return True
        raise InvalidPrompt(
            "timestamp_nanoseconds",
            f"must be above the last sample's {last}, got {timestamp_nanoseconds}; send samples in the order of a"
            " monotonic clock",
        )

    def _is_certain(self, sample: GazeSample) -> bool:
        if not 0 <= sample.confidence <= 1:
            raise InvalidPrompt("confidence", f"must be between 0 and 1 if valid is true, got {sample.confidence:g}")
        return sample.confidence >= self._options.min_confidence

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

    async def _answer(self, waiting: _Waiting) -> GazeResult | Refusal:
        view, look = self._frames.view, waiting.look
        timings = StageTimings()
        try:
            if view is None or look is None:
                state = GazeState.NO_FRAME
            elif look.kind is LookKind.FIXATION and look.point is not None:
                state, timings = await self._objects.regard(view, look.point)
            else:
                state = _STATES[look.kind]
                if state is GazeState.RELEASED:
                    self._objects.release()
            started = self._clock()
            mask = None if view is None else await self._objects.show(view)
            if mask is not None:
                timings += StageTimings({Stage.POST_PROCESS: self._clock() - started})
        except SamserveError as error:
            self._observer.gaze_sample("failed")
            self._refused += 1
            return Refusal("sample", waiting.sample.sequence, error)
        self._observer.gaze_sample(state.value)
        self._skipped += state is not GazeState.NEW_MASK
        return GazeResult(
            sample=waiting.sample,
            state=state,
            object_id=self._objects.object_id,
            mask=mask,
            point=self._outward(look.point) if look is not None and look.point is not None else None,
            frame_sequence=view.sequence if view is not None else 0,
            keyframe_sequence=view.keyframe.sequence if view is not None else 0,
            keyframe_pending=self._frames.pending,
            counts=self._counts(),
            timings=timings,
            total_seconds=self._clock() - waiting.arrived,
        )

    def _counts(self) -> GazeTotals:
        frames = self._frames
        return GazeTotals(
            self._samples,
            self._dropped,
            self._skipped,
            self._refused,
            self._objects.decodes,
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
