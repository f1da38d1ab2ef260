"""Interactive sessions as the client has them."""

import asyncio
from dataclasses import dataclass
from typing import Any

from samserve.client.errors import InvalidRequest
from samserve.client.image import ImageLike, ImageSource
from samserve.client.streaming import AsyncStream, OpenCall, Refused, StreamMask, read_error, read_mask
from samserve.v1 import segmentation_pb2 as pb

_LABELS = {1: pb.POINT_LABEL_FOREGROUND, 0: pb.POINT_LABEL_BACKGROUND}


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


class AsyncInteractiveSession(AsyncStream[SessionMasks | Refused]):
    """`SegmentStream`: edit a prompt on one image. An edit returns at once; `masks` waits for what it leads to.

    >>> async with client.interactive("photo.jpg") as session:
    ...     await session.add_point(320, 240)
    ...     await session.add_point(80, 60, label=0)
    ...     result = await session.masks()
    """

    def __init__(
        self, open_call: OpenCall, target: str, image: ImageLike, normalized: bool, multimask_output: bool
    ) -> None:
        super().__init__(open_call, target)
        self._image: ImageLike | None = image
        self._space = pb.COORDINATE_SPACE_NORMALIZED if normalized else pb.COORDINATE_SPACE_PIXELS
        self._multimask_output = multimask_output
        self._sequence = 0

    async def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Add a click: label 1 on the object, 0 beside it."""
        if label not in _LABELS:
            raise InvalidRequest("label", f"is {label}: use 1 for foreground, 0 for background")
        await self._edit(add_point=pb.Point(x=x, y=y, label=_LABELS[label]))

    async def move_point(self, index: int, x: float, y: float) -> None:
        """Move the click at this index."""
        await self._edit(move_point=pb.MovePoint(index=index, x=x, y=y))

    async def remove_point(self, index: int) -> None:
        """Remove the click at this index."""
        await self._edit(remove_point=pb.RemovePoint(index=index))

    async def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Set the box, or change it."""
        await self._edit(set_box=pb.Box(x0=x0, y0=y0, x1=x1, y1=y1))

    async def remove_box(self) -> None:
        """Remove the box."""
        await self._edit(remove_box=pb.RemoveBox())

    async def clear(self) -> None:
        """Remove everything."""
        await self._edit(clear_prompt=pb.ClearPrompt())

    async def undo(self) -> None:
        """Take the last edit back."""
        await self._edit(undo=pb.Undo())

    async def masks(self) -> SessionMasks:
        """The masks after the last edit sent; those of earlier ones are passed over.

        Raises:
            ClientError: the last edit was refused, or the stream ended.
        """
        async for answer in self:
            if answer.sequence < self._sequence:
                continue
            if isinstance(answer, Refused):
                raise answer.error
            return answer
        raise InvalidRequest("", "the session has ended")

    async def _edit(self, **edit: Any) -> None:
        if self._image is not None:
            source = await asyncio.to_thread(ImageSource.of, self._image)
            self._image = None
            self._begin(source.image_id)
            start = pb.StartSession(
                image=source.message, coordinate_space=self._space, multimask_output=self._multimask_output
            )
            await self._number(start_session=start)
        await self._number(**edit)

    async def _number(self, **edit: Any) -> None:
        self._sequence += 1
        await self._send(pb.SegmentStreamRequest(sequence=self._sequence, **edit))

    def _read(self, message: pb.SegmentStreamResponse) -> SessionMasks | Refused:
        if message.WhichOneof("answer") == "error":
            return Refused(message.sequence, read_error(message.error))
        answer = message.masks
        box = (answer.box.x0, answer.box.y0, answer.box.x1, answer.box.y1) if answer.HasField("box") else None
        return SessionMasks(
            message.sequence,
            [read_mask(mask) for mask in answer.masks],
            [(point.x, point.y, int(point.label == pb.POINT_LABEL_FOREGROUND)) for point in answer.points],
            box,
            answer.undoable_edits,
        )
