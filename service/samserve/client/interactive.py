"""Values and messages of interactive sessions."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from samserve.client.errors import InvalidRequest
from samserve.client.image import ImageLike
from samserve.client.request import message_of
from samserve.client.streaming import (
    Refused,
    StreamMask,
    read_error,
    read_mask,
)
from samserve.v1 import segmentation_pb2 as pb

_LABELS = {1: pb.POINT_LABEL_FOREGROUND, 0: pb.POINT_LABEL_BACKGROUND}

Edit: TypeAlias = dict[str, Any]
"""An edit: the name of its field in the request, and the field's value."""


@dataclass(frozen=True, slots=True)
class SessionMasks:
    """The masks of a prompt.

    Attributes:
        sequence: of the last edit that they show.
        masks: three for a single point with `multimask_output`, else one; none for an empty prompt.
        points: (x, y, label).
        box: XYXY or None.
        undoable_edits: how many edits can be undone.
    """

    sequence: int
    masks: list[StreamMask]
    points: list[tuple[float, float, int]]
    box: tuple[float, float, float, float] | None
    undoable_edits: int


class SessionMessages:
    """Builds the messages of one session, with numbers, and finds the answer to the last one.

    Attributes:
        unsent: the image, until `start` has been made of it.
    """

    def __init__(self, image: ImageLike, normalized: bool, multimask_output: bool) -> None:
        self.unsent: ImageLike | None = image
        self._space = pb.COORDINATE_SPACE_NORMALIZED if normalized else pb.COORDINATE_SPACE_PIXELS
        self._multimask_output = multimask_output
        self._sequence = 0

    def start(self, image: pb.Image) -> pb.SegmentStreamRequest:
        """The session's first message."""
        self.unsent = None
        start = pb.StartSession(image=image, coordinate_space=self._space, multimask_output=self._multimask_output)
        return self.number({"start_session": start})

    def number(self, edit: Edit) -> pb.SegmentStreamRequest:
        """The message of an edit."""
        self._sequence += 1
        return pb.SegmentStreamRequest(sequence=self._sequence, **edit)

    def latest(self, answer: SessionMasks | Refused) -> SessionMasks | None:
        """Return the masks if they belong to the last edit sent, otherwise None.

        Raises:
            ClientError: the last edit was rejected.
        """
        if answer.sequence < self._sequence:
            return None
        if isinstance(answer, Refused):
            raise answer.error
        return answer


def add_point(x: float, y: float, label: int) -> Edit:
    if label not in _LABELS:
        raise InvalidRequest("label", f"must be 1 (foreground) or 0 (background), got {label}")
    return {"add_point": message_of(pb.Point, x=x, y=y, label=_LABELS[label])}


def move_point(index: int, x: float, y: float) -> Edit:
    return {"move_point": message_of(pb.MovePoint, index=index, x=x, y=y)}


def remove_point(index: int) -> Edit:
    return {"remove_point": message_of(pb.RemovePoint, index=index)}


def set_box(x0: float, y0: float, x1: float, y1: float) -> Edit:
    return {"set_box": message_of(pb.Box, x0=x0, y0=y0, x1=x1, y1=y1)}


REMOVE_BOX: Edit = {"remove_box": pb.RemoveBox()}
CLEAR: Edit = {"clear_prompt": pb.ClearPrompt()}
UNDO: Edit = {"undo": pb.Undo()}


def session_ended() -> InvalidRequest:
    return InvalidRequest("", "the session has ended; open a new one")


def read_answer(message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
    if message.WhichOneof("answer") == "error":
        return Refused(message.sequence, read_error(message.error), message.error.field)
    answer = message.masks
    box = (answer.box.x0, answer.box.y0, answer.box.x1, answer.box.y1) if answer.HasField("box") else None
    return SessionMasks(
        message.sequence,
        [read_mask(mask) for mask in answer.masks],
        [(point.x, point.y, int(point.label == pb.POINT_LABEL_FOREGROUND)) for point in answer.points],
        box,
        answer.undoable_edits,
    )
