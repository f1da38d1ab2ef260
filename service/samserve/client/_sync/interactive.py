# Generated from samserve/client/_async by `make unasync`; do not edit.
"""The interactive session."""

from samserve.client.image import ImageLike, ImageSource
from samserve.client.interactive import (
    CLEAR,
    REMOVE_BOX,
    UNDO,
    Edit,
    SessionMasks,
    SessionMessages,
    add_point,
    move_point,
    read_answer,
    remove_point,
    session_ended,
    set_box,
)
from samserve.client.streaming import OpenCall, Refused, Stream
from samserve.client.waiting import run
from samserve.v1 import segmentation_pb2 as pb


class InteractiveSession(Stream[SessionMasks | Refused]):
    """A `SegmentStream` session: edit a prompt on one image. Edits return at once; `masks` waits for the result.

    >>> with client.interactive("photo.jpg") as session:
    ...     session.add_point(320, 240)
    ...     session.add_point(80, 60, label=0)
    ...     result = session.masks()
    """

    def __init__(
        self, open_call: OpenCall, target: str, image: ImageLike, normalized: bool, multimask_output: bool
    ) -> None:
        super().__init__(open_call, target)
        self._messages = SessionMessages(image, normalized, multimask_output)

    def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Add a point, with label 1 on the object or 0 on the background."""
        self._edit(add_point(x, y, label))

    def move_point(self, index: int, x: float, y: float) -> None:
        """Move the point at this index."""
        self._edit(move_point(index, x, y))

    def remove_point(self, index: int) -> None:
        """Remove the point at this index."""
        self._edit(remove_point(index))

    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Set or replace the box."""
        self._edit(set_box(x0, y0, x1, y1))

    def remove_box(self) -> None:
        """Remove the box."""
        self._edit(REMOVE_BOX)

    def clear(self) -> None:
        """Remove all points and the box."""
        self._edit(CLEAR)

    def undo(self) -> None:
        """Undo the last edit."""
        self._edit(UNDO)

    def masks(self) -> SessionMasks:
        """Wait for the masks after the last edit sent. Masks of earlier edits are skipped.

        Raises:
            ClientError: the last edit was rejected, or the stream ended.
        """
        for answer in self:
            latest = self._messages.latest(answer)
            if latest is not None:
                return latest
        raise session_ended()

    def _edit(self, edit: Edit) -> None:
        if self._messages.unsent is not None:
            source = run(ImageSource.of, self._messages.unsent)
            self._send(self._messages.start(source.message), image_id=source.image_id)
        self._send(self._messages.number(edit))

    def _read(self, message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
        return read_answer(message)
