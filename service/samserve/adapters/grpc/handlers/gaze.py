"""gRPC handler of `SegmentGaze`."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np

from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.adapters.grpc.messages import duration, read_image, read_space
from samserve.adapters.grpc.streams import converse, error_message, next_request, seconds
from samserve.domain.errors import InvalidArgument, InvalidImage, InvalidPrompt, within
from samserve.domain.gaze.fixations import DispersionThreshold, FixationClassifier, VelocityThreshold
from samserve.domain.gaze.one_euro import OneEuroParameters
from samserve.domain.gaze.stream import GazeOptions, GazeSample, GazeState, GazeTotals
from samserve.domain.gaze.viewing import Viewing
from samserve.domain.keyframes import KeyframePolicy
from samserve.domain.prompts import CoordinateSpace
from samserve.observability.call import current_call
from samserve.usecases.gaze.frames import GazeFrame
from samserve.usecases.gaze.session import GazeResult, GazeSession, Refusal
from samserve.usecases.timings import Stage
from samserve.v1 import segmentation_pb2 as pb

_DEFAULTS = GazeOptions()

_STATES = {
    GazeState.NO_FRAME: pb.GAZE_STATE_NO_FRAME,
    GazeState.NEW_MASK: pb.GAZE_STATE_NEW_MASK,
    GazeState.SAME_OBJECT: pb.GAZE_STATE_SAME_OBJECT,
    GazeState.SACCADE: pb.GAZE_STATE_SACCADE,
    GazeState.HELD: pb.GAZE_STATE_HELD,
    GazeState.RELEASED: pb.GAZE_STATE_RELEASED,
}

Answer: TypeAlias = GazeResult | Refusal


class MakeGazeSession(Protocol):
    """Creates the use case of one stream."""

    def __call__(self, options: GazeOptions, tenant: str) -> GazeSession: ...


class GazeHandler:
    """Reads `SegmentGazeRequest`s, runs the use case, and writes `SegmentGazeResponse`s.

    Args:
        max_frame_bytes: of one frame's file.
        idle_seconds: longest silence of a client.
        max_encodes_per_second: what no client's configuration exceeds.
    """

    def __init__(
        self,
        make_session: MakeGazeSession,
        *,
        max_frame_bytes: int,
        idle_seconds: float,
        max_encodes_per_second: float,
    ) -> None:
        self._make_session = make_session
        self._max_frame_bytes = max_frame_bytes
        self._idle_seconds = idle_seconds
        self._max_encodes_per_second = max_encodes_per_second

    async def serve(
        self, requests: AsyncIterator[pb.SegmentGazeRequest], tenant: str
    ) -> AsyncGenerator[pb.SegmentGazeResponse, None]:
        """Serve one stream, from its configuration to its end."""
        first = await next_request(requests, self._idle_seconds)
        if first is None:
            return
        if first.WhichOneof("message") != "config":
            raise InvalidArgument("config", "missing; the first message of a gaze stream must be the config")
        with within("config"):
            options = read_options(first.config, self._max_encodes_per_second)
        session = self._make_session(options, tenant)
        receive = partial(self._receive, session)
        async with aclosing(converse(session, requests, receive, self._idle_seconds)) as answers:
            async for answer in answers:
                made = time.perf_counter()
                if isinstance(answer, GazeResult):
                    current_call().answered(answer.timings)
                yield _message(answer, options.coordinate_space)
                # The next answer is requested once the client has taken this one.
                if isinstance(answer, GazeResult):
                    current_call().gaze_answered(answer.total_seconds + time.perf_counter() - made)

    def _receive(self, session: GazeSession, request: pb.SegmentGazeRequest) -> None:
        match request.WhichOneof("message"):
            case "sample":
                session.sample(_sample(request.sample))
            case "frame":
                try:
                    frame = self._frame(request.frame)
                except InvalidArgument as error:
                    session.refuse_frame(request.frame.sequence, error)
                else:
                    session.frame(frame)
            case "config":
                again = InvalidArgument(
                    "config", "already set and cannot change; open a new stream to use another config"
                )
                session.refuse("", 0, again)
            case _:
                # Also for kinds that only newer servers know.
                session.refuse("", 0, InvalidArgument("message", "empty; send a frame or a sample"))

    def _frame(self, frame: pb.GazeFrame) -> GazeFrame:
        reference = None
        if frame.reference_homography:
            if len(frame.reference_homography) != 9:
                count = len(frame.reference_homography)
                raise InvalidImage("reference_homography", f"must have 9 numbers, got {count}")
            reference = np.array(frame.reference_homography, dtype=np.float64).reshape(3, 3)
        return GazeFrame(frame.sequence, read_image(frame.image, self._max_frame_bytes), reference)


def read_options(config: pb.GazeConfig, max_encodes_per_second: float) -> GazeOptions:
    """Read the configuration of a stream. Zero or absent fields get defaults.

    Raises:
        InvalidArgument: naming the field of the configuration that is out of range.
    """
    angle = _number("field_of_view_degrees", config.field_of_view_degrees, _DEFAULTS.field_of_view_degrees)
    if angle >= 180:
        raise InvalidArgument("field_of_view_degrees", f"must be below 180, got {angle:g}")
    hold = seconds(config.hold) if config.HasField("hold") else _DEFAULTS.hold_seconds
    if hold < 0:
        raise InvalidArgument("hold", f"must not be negative, got {hold:g} s")
    if not 0 <= config.min_confidence <= 1:
        raise InvalidArgument("min_confidence", f"must be between 0 and 1, got {config.min_confidence:g}")
    return GazeOptions(
        coordinate_space=read_space(config.coordinate_space),
        field_of_view_degrees=angle,
        smoothing=_smoothing(config.filter),
        classifier=_classifier(config),
        min_confidence=config.min_confidence,
        hold_seconds=hold,
        max_mask_side=config.max_mask_side,
        keyframes=_policy(config.keyframes, max_encodes_per_second),
        mask_format=read_mask_format(config.mask_format),
    )


def _smoothing(given: pb.OneEuroFilter) -> OneEuroParameters | None:
    default = OneEuroParameters()
    if given.disabled:
        return None
    with within("filter"):
        return OneEuroParameters(
            _number("min_cutoff_hertz", given.min_cutoff_hertz, default.min_cutoff_hertz),
            _number("beta", given.beta, default.beta),
            _number("d_cutoff_hertz", given.d_cutoff_hertz, default.d_cutoff_hertz),
        )


def _classifier(config: pb.GazeConfig) -> Callable[[Viewing], FixationClassifier]:
    velocity, dispersion = config.velocity_threshold, config.dispersion_threshold
    match config.WhichOneof("classifier"):
        case "velocity_threshold":
            with within("velocity_threshold"):
                limit, in_pixels = _threshold(velocity)
            return lambda viewing: VelocityThreshold(viewing, limit * (viewing.degrees_per_pixel if in_pixels else 1))
        case "dispersion_threshold":
            with within("dispersion_threshold"):
                limit, in_pixels = _threshold(dispersion)
                min_seconds = _number("min_duration", seconds(dispersion.min_duration), 0.1)
            return lambda viewing: DispersionThreshold(
                viewing, limit * (viewing.degrees_per_pixel if in_pixels else 1), min_seconds
            )
        case _:
            return VelocityThreshold


def _threshold(given: pb.VelocityThreshold | pb.DispersionThreshold) -> tuple[float, bool]:
    """The threshold, and whether it is in pixels."""
    unit = given.WhichOneof("threshold")
    if unit is None:
        raise InvalidPrompt("threshold", "missing; set it in degrees or in pixels")
    return _number(unit, getattr(given, unit), None), unit.startswith("pixels")


def _policy(given: pb.KeyframePolicy, max_encodes_per_second: float) -> KeyframePolicy:
    default = KeyframePolicy()
    with within("keyframes"):
        rate = _number("max_encodes_per_second", given.max_encodes_per_second, max_encodes_per_second)
        return KeyframePolicy(
            _number("max_scene_change", given.max_scene_change, default.max_scene_change),
            _number("max_motion", given.max_motion, default.max_motion),
            _number("max_age", seconds(given.max_age), default.max_age_seconds),
            min(rate, max_encodes_per_second),
        )


def _number(field: str, given: float, default: float | None) -> float:
    if given == 0 and default is not None:
        return default
    if not (math.isfinite(given) and given > 0):
        raise InvalidPrompt(field, f"must be a finite number above 0, got {given:g}")
    return given


def _sample(sample: pb.GazeSample) -> GazeSample:
    return GazeSample(
        sample.sequence,
        sample.timestamp_nanoseconds,
        sample.x,
        sample.y,
        sample.valid,
        sample.confidence if sample.HasField("confidence") else 1.0,
    )


def _message(answer: Answer, coordinate_space: CoordinateSpace) -> pb.SegmentGazeResponse:
    if isinstance(answer, Refusal):
        error = answer.error
        if answer.message and isinstance(error, InvalidArgument):
            error = error.within(answer.message)
        return pb.SegmentGazeResponse(error=error_message(answer.sequence, error, answer.message))
    x, y = answer.point or (0.0, 0.0)
    return pb.SegmentGazeResponse(
        answer=pb.GazeAnswer(
            sequence=answer.sample.sequence,
            timestamp_nanoseconds=answer.sample.timestamp_nanoseconds,
            state=_STATES[answer.state],
            object_id=answer.object_id,
            mask=mask_message(answer.mask, coordinate_space) if answer.mask is not None else None,
            x=x,
            y=y,
            frame_sequence=answer.frame_sequence,
            keyframe_sequence=answer.keyframe_sequence,
            keyframe_pending=answer.keyframe_pending,
            counts=_counts(answer.counts),
            decode=duration(answer.timings[Stage.MASK_DECODE]),
            total=duration(answer.total_seconds),
        )
    )


def _counts(counts: GazeTotals) -> pb.GazeCounts:
    return pb.GazeCounts(
        samples=counts.samples,
        samples_dropped=counts.samples_dropped,
        samples_skipped=counts.samples_skipped,
        samples_refused=counts.samples_refused,
        decodes=counts.decodes,
        frames=counts.frames,
        frames_dropped=counts.frames_dropped,
        keyframes=counts.keyframes,
    )
