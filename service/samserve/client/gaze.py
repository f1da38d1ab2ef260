"""Values and messages of gaze streams."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration

from samserve.client.errors import InvalidRequest
from samserve.client.request import message_of
from samserve.client.streaming import (
    Refused,
    StreamMask,
    read_error,
    read_mask,
)
from samserve.v1 import segmentation_pb2 as pb

_MAX_HOLD_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class GazeCounts:
    """Totals of a stream so far, as documented for the proto's `GazeCounts`."""

    samples: int
    samples_dropped: int
    samples_skipped: int
    samples_refused: int
    decodes: int
    frames: int
    frames_dropped: int
    keyframes: int


@dataclass(frozen=True, slots=True)
class GazeAnswer:
    """What became of one sample.

    Attributes:
        sequence: the sample's own.
        timestamp_nanoseconds: the sample's own.
        state: `no_frame`, `new_mask`, `same_object`, `saccade`, `held` or `released`; docs/streams.md explains each.
        object_id: rises with each object looked at; 0 for none.
        mask: where it is new, or has moved with the frame; otherwise the last one still holds.
        point: the filtered gaze (x, y).
        frame_sequence: of the frame that mask and point lie on.
        keyframe_pending: a newer frame is being encoded; until it is ready the old one serves.
        total_seconds: in the server, from the sample's arrival.
    """

    sequence: int
    timestamp_nanoseconds: int
    state: str
    object_id: int
    mask: StreamMask | None
    point: tuple[float, float]
    frame_sequence: int
    keyframe_sequence: int
    keyframe_pending: bool
    counts: GazeCounts
    decode_seconds: float
    total_seconds: float


class GazeMessages:
    """Builds the messages of one stream, with numbers, and the configuration before the first one."""

    def __init__(self, config: pb.GazeConfig) -> None:
        self._waiting = [pb.SegmentGazeRequest(config=config)]
        self.frames = self.samples = 0

    def frame(self, image: pb.Image, reference_homography: npt.ArrayLike | None) -> list[pb.SegmentGazeRequest]:
        """The message for the next frame."""
        numbers: list[float] = []
        if reference_homography is not None:
            matrix = np.asarray(reference_homography, dtype=np.float64)
            if matrix.shape != (3, 3):
                raise InvalidRequest("reference_homography", f"must have shape [3, 3], got {list(matrix.shape)}")
            numbers = matrix.reshape(9).tolist()
        self.frames += 1
        frame = pb.GazeFrame(sequence=self.frames, image=image, reference_homography=numbers)
        return self._after_what_waits(pb.SegmentGazeRequest(frame=frame))

    def sample(
        self, timestamp_nanoseconds: int, x: float, y: float, valid: bool, confidence: float | None
    ) -> list[pb.SegmentGazeRequest]:
        """The message for the next sample."""
        sample = message_of(
            pb.GazeSample,
            sequence=self.samples + 1,
            timestamp_nanoseconds=timestamp_nanoseconds,
            x=x,
            y=y,
            valid=valid,
            confidence=confidence,
        )
        self.samples += 1
        return self._after_what_waits(pb.SegmentGazeRequest(sample=sample))

    def _after_what_waits(self, request: pb.SegmentGazeRequest) -> list[pb.SegmentGazeRequest]:
        waiting, self._waiting = self._waiting, []
        return [*waiting, request]


def read_answer(message: pb.SegmentGazeResponse) -> GazeAnswer | Refused:
    if message.WhichOneof("message") == "error":
        return Refused(message.error.sequence, read_error(message.error), message.error.field)
    answer, counts = message.answer, message.answer.counts
    return GazeAnswer(
        sequence=answer.sequence,
        timestamp_nanoseconds=answer.timestamp_nanoseconds,
        state=pb.GazeState.Name(answer.state).removeprefix("GAZE_STATE_").lower(),
        object_id=answer.object_id,
        mask=read_mask(answer.mask) if answer.HasField("mask") else None,
        point=(answer.x, answer.y),
        frame_sequence=answer.frame_sequence,
        keyframe_sequence=answer.keyframe_sequence,
        keyframe_pending=answer.keyframe_pending,
        counts=GazeCounts(
            counts.samples,
            counts.samples_dropped,
            counts.samples_skipped,
            counts.samples_refused,
            counts.decodes,
            counts.frames,
            counts.frames_dropped,
            counts.keyframes,
        ),
        decode_seconds=answer.decode.ToNanoseconds() / 1e9,
        total_seconds=answer.total.ToNanoseconds() / 1e9,
    )


def gaze_config(
    *, normalized: bool, field_of_view_degrees: float, max_mask_side: int, min_confidence: float, hold_seconds: float
) -> pb.GazeConfig:
    """The first message of a gaze stream. The arguments are those of `Client.gaze`.

    Raises:
        InvalidRequest: a value cannot be sent.
    """
    if not abs(hold_seconds) < _MAX_HOLD_SECONDS:
        raise InvalidRequest("hold_seconds", f"must be a number of seconds from 0 on, got {hold_seconds}")
    hold = Duration()
    hold.FromNanoseconds(round(1e9 * hold_seconds))
    return message_of(
        pb.GazeConfig,
        coordinate_space=pb.COORDINATE_SPACE_NORMALIZED if normalized else pb.COORDINATE_SPACE_PIXELS,
        field_of_view_degrees=field_of_view_degrees,
        max_mask_side=max_mask_side,
        min_confidence=min_confidence,
        hold=hold,
        mask_format=pb.MASK_FORMAT_COCO_RLE,
    )
