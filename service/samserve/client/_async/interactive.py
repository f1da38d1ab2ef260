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
from samserve.client.streaming import AsyncStream, OpenCall, Refused
from samserve.client.waiting import async_run
from samserve.v1 import segmentation_pb2 as pb


class AsyncInteractiveSession(AsyncStream[SessionMasks | Refused]):
    """A `SegmentStream` session: edit a prompt on one image. Edits return at once; `masks` waits for the result.

    >>> async with client.interactive("photo.jpg") as session:
    ...     await session.add_point(320, 240)
    ...     await session.add_point(80, 60, label=0)
    ...     result = await session.masks()
    """

    def __init__(
        self, open_call: OpenCall, target: str, image: ImageLike, normalized: bool, multimask_output: bool
    ) -> None:
        super().__init__(open_call, target)
        self._messages = SessionMessages(image, normalized, multimask_output)

    async def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Add a point, with label 1 on the object or 0 on the background."""
        await self._edit(add_point(x, y, label))

    async def move_point(self, index: int, x: float, y: float) -> None:
        """Move the point at this index."""
        await self._edit(move_point(index, x, y))

    async def remove_point(self, index: int) -> None:
        """Remove the point at this index."""
        await self._edit(remove_point(index))

    async def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Set or replace the box."""
        await self._edit(set_box(x0, y0, x1, y1))

    async def remove_box(self) -> None:
        """Remove the box."""
        await self._edit(REMOVE_BOX)

    async def clear(self) -> None:
        """Remove all points and the box."""
        await self._edit(CLEAR)

    async def undo(self) -> None:
        """Undo the last edit."""
        await self._edit(UNDO)

    async def masks(self) -> SessionMasks:
        """Wait for the masks after the last edit sent. Masks of earlier edits are skipped.

        Raises:
            ClientError: the last edit was rejected, or the stream ended.
        """
        async for answer in self:
            latest = self._messages.latest(answer)
            if latest is not None:
                return latest
        raise session_ended()

    async def _edit(self, edit: Edit) -> None:
        if self._messages.unsent is not None:
            source = await async_run(ImageSource.of, self._messages.unsent)
            await self._send(self._messages.start(source.message), image_id=source.image_id)
        await self._send(self._messages.number(edit))

    def _read(self, message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
        return read_answer(message)
