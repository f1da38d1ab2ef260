"""Interactive sessions as the client has them."""

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias

from samserve.client.errors import InvalidRequest
from samserve.client.image import ImageLike, ImageSource
from samserve.client.request import message_of
from samserve.client.streaming import (
    AsyncOpenCall,
    AsyncStream,
    OpenCall,
    Refused,
    Stream,
    StreamMask,
    read_error,
    read_mask,
)
from samserve.v1 import segmentation_pb2 as pb

_LABELS = {1: pb.POINT_LABEL_FOREGROUND, 0: pb.POINT_LABEL_BACKGROUND}

_Edit: TypeAlias = dict[str, Any]
"""The field of the request that an edit is, and its value."""


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


class _SessionMessages:
    """The messages of one session, numbered, and which answer goes with the last.

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

    def number(self, edit: _Edit) -> pb.SegmentStreamRequest:
        """The message of an edit."""
        self._sequence += 1
        return pb.SegmentStreamRequest(sequence=self._sequence, **edit)

    def latest(self, answer: SessionMasks | Refused) -> SessionMasks | None:
        """The masks, where they are those of the last edit sent.

        Raises:
            ClientError: the last edit was refused.
        """
        if answer.sequence < self._sequence:
            return None
        if isinstance(answer, Refused):
            raise answer.error
        return answer


class InteractiveSession(Stream[SessionMasks | Refused]):
    """`SegmentStream`: edit a prompt on one image. An edit returns at once; `masks` waits for what it leads to.

    >>> with client.interactive("photo.jpg") as session:
    ...     session.add_point(320, 240)
    ...     session.add_point(80, 60, label=0)
    ...     result = session.masks()
    """

    def __init__(
        self,
        open_call: OpenCall,
        target: str,
        image: ImageLike,
        normalized: bool,
        multimask_output: bool,
    ) -> None:
        super().__init__(open_call, target)
        self._messages = _SessionMessages(image, normalized, multimask_output)

    def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Add a click: label 1 on the object, 0 beside it."""
        self._edit(_add_point(x, y, label))

    def move_point(self, index: int, x: float, y: float) -> None:
        """Move the click at this index."""
        self._edit(_move_point(index, x, y))

    def remove_point(self, index: int) -> None:
        """Remove the click at this index."""
        self._edit(_remove_point(index))

    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Set the box, or change it."""
        self._edit(_set_box(x0, y0, x1, y1))

    def remove_box(self) -> None:
        """Remove the box."""
        self._edit(_REMOVE_BOX)

    def clear(self) -> None:
        """Remove everything."""
        self._edit(_CLEAR)

    def undo(self) -> None:
        """Take the last edit back."""
        self._edit(_UNDO)

    def masks(self) -> SessionMasks:
        """The masks after the last edit sent; those of earlier ones are passed over.

        Raises:
            ClientError: the last edit was refused, or the stream ended.
        """
        for answer in self:
            latest = self._messages.latest(answer)
            if latest is not None:
                return latest
        raise _no_more()

    def _edit(self, edit: _Edit) -> None:
        if self._messages.unsent is not None:
            source = ImageSource.of(self._messages.unsent)
            self._send(self._messages.start(source.message), image_id=source.image_id)
        self._send(self._messages.number(edit))

    def _read(self, message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
        return _read_answer(message)


class AsyncInteractiveSession(AsyncStream[SessionMasks | Refused]):
    """`InteractiveSession` with `await`."""

    def __init__(
        self, open_call: AsyncOpenCall, target: str, image: ImageLike, normalized: bool, multimask_output: bool
    ) -> None:
        super().__init__(open_call, target)
        self._messages = _SessionMessages(image, normalized, multimask_output)

    async def add_point(self, x: float, y: float, label: int = 1) -> None:
        """As `InteractiveSession.add_point`."""
        await self._edit(_add_point(x, y, label))

    async def move_point(self, index: int, x: float, y: float) -> None:
        """As `InteractiveSession.move_point`."""
        await self._edit(_move_point(index, x, y))

    async def remove_point(self, index: int) -> None:
        """As `InteractiveSession.remove_point`."""
        await self._edit(_remove_point(index))

    async def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """As `InteractiveSession.set_box`."""
        await self._edit(_set_box(x0, y0, x1, y1))

    async def remove_box(self) -> None:
        """As `InteractiveSession.remove_box`."""
        await self._edit(_REMOVE_BOX)

    async def clear(self) -> None:
        """As `InteractiveSession.clear`."""
        await self._edit(_CLEAR)

    async def undo(self) -> None:
        """As `InteractiveSession.undo`."""
        await self._edit(_UNDO)

    async def masks(self) -> SessionMasks:
        """As `InteractiveSession.masks`."""
        async for answer in self:
            latest = self._messages.latest(answer)
            if latest is not None:
                return latest
        raise _no_more()

    async def _edit(self, edit: _Edit) -> None:
        if self._messages.unsent is not None:
            source = await asyncio.to_thread(ImageSource.of, self._messages.unsent)
            await self._send(self._messages.start(source.message), image_id=source.image_id)
        await self._send(self._messages.number(edit))

    def _read(self, message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
        return _read_answer(message)


def _add_point(x: float, y: float, label: int) -> _Edit:
    if label not in _LABELS:
        raise InvalidRequest("label", f"must be 1 (foreground) or 0 (background), got {label}")
    return {"add_point": message_of(pb.Point, x=x, y=y, label=_LABELS[label])}


def _move_point(index: int, x: float, y: float) -> _Edit:
    return {"move_point": message_of(pb.MovePoint, index=index, x=x, y=y)}


def _remove_point(index: int) -> _Edit:
    return {"remove_point": message_of(pb.RemovePoint, index=index)}


def _set_box(x0: float, y0: float, x1: float, y1: float) -> _Edit:
    return {"set_box": message_of(pb.Box, x0=x0, y0=y0, x1=x1, y1=y1)}


_REMOVE_BOX: _Edit = {"remove_box": pb.RemoveBox()}
_CLEAR: _Edit = {"clear_prompt": pb.ClearPrompt()}
_UNDO: _Edit = {"undo": pb.Undo()}


def _no_more() -> InvalidRequest:
    return InvalidRequest("", "the session has ended; open a new one")


def _read_answer(message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
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
