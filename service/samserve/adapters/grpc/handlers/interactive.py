"""gRPC handler of `SegmentStream`."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Protocol

from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.adapters.grpc.messages import duration, read_image, read_label, read_space, size_message
from samserve.adapters.grpc.streams import converse, error_message
from samserve.domain.edits import AddPoint, ClearPrompt, Edit, MovePoint, RemovePoint, SetBox, Undo
from samserve.domain.errors import InvalidArgument, within
from samserve.domain.prompts import PointLabel
from samserve.observability.call import current_call
from samserve.usecases.interactive import EditingSession, PromptMasks, RefusedEdit, SessionStart
from samserve.usecases.timings import Stage
from samserve.v1 import segmentation_pb2 as pb


class MakeInteractiveSession(Protocol):
    """Creates the use case of one stream."""

    def __call__(self, tenant: str) -> EditingSession: ...


class InteractiveHandler:
    """Reads `SegmentStreamRequest`s, runs the use case, and writes `SegmentStreamResponse`s.

    Args:
        max_image_bytes: of an image file.
        idle_seconds: longest silence of a client.
    """

    def __init__(self, make_session: MakeInteractiveSession, *, max_image_bytes: int, idle_seconds: float) -> None:
        self._make_session = make_session
        self._max_image_bytes = max_image_bytes
        self._idle_seconds = idle_seconds

    async def serve(
        self, requests: AsyncIterator[pb.SegmentStreamRequest], tenant: str
    ) -> AsyncGenerator[pb.SegmentStreamResponse, None]:
        """Serve one stream."""
        session = self._make_session(tenant)
        receive = partial(self._receive, session)
        async with aclosing(converse(session, requests, receive, self._idle_seconds)) as answers:
            async for answer in answers:
                if isinstance(answer, PromptMasks):
                    current_call().answered(answer.timings)
                yield _message(answer)

    def _receive(self, session: EditingSession, request: pb.SegmentStreamRequest) -> None:
        try:
            if request.WhichOneof("edit") == "start_session":
                with within("start_session"):
                    start = self._start(request.start_session)
                session.start(request.sequence, start)
            else:
                session.edit(request.sequence, _edit(request))
        except InvalidArgument as error:
            session.refuse(request.sequence, error)

    def _start(self, start: pb.StartSession) -> SessionStart:
        image = read_image(start.image, self._max_image_bytes)
        space = read_space(start.coordinate_space)
        return SessionStart(image, space, start.multimask_output, read_mask_format(start.mask_format))


def _edit(request: pb.SegmentStreamRequest) -> Edit:
    match request.WhichOneof("edit"):
        case "add_point":
            point = request.add_point
            with within("add_point"):
                return AddPoint(point.x, point.y, read_label(point))
        case "move_point":
            return MovePoint(request.move_point.index, request.move_point.x, request.move_point.y)
        case "remove_point":
            return RemovePoint(request.remove_point.index)
        case "set_box":
            box = request.set_box
            return SetBox((box.x0, box.y0, box.x1, box.y1))
        case "remove_box":
            return SetBox(None)
        case "clear_prompt":
            return ClearPrompt()
        case "undo":
            return Undo()
        case _:
            raise InvalidArgument("edit", "missing; send start_session or a prompt edit")


_LABELS = {
    PointLabel.FOREGROUND: pb.POINT_LABEL_FOREGROUND,
    PointLabel.BACKGROUND: pb.POINT_LABEL_BACKGROUND,
}


def _message(answer: PromptMasks | RefusedEdit) -> pb.SegmentStreamResponse:
    if isinstance(answer, RefusedEdit):
        return pb.SegmentStreamResponse(sequence=answer.sequence, error=error_message(answer.sequence, answer.error))
    prompt, embedded = answer.prompt, answer.embedded
    points = [
        pb.Point(x=x, y=y, label=_LABELS[PointLabel(label)])
        for (x, y), label in zip(prompt.point_coords, prompt.point_labels, strict=True)
    ]
    box = None
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        box = pb.Box(x0=x0, y0=y0, x1=x1, y1=y1)
    return pb.SegmentStreamResponse(
        sequence=answer.sequence,
        masks=pb.SessionMasks(
            masks=[mask_message(mask, answer.coordinate_space) for mask in answer.masks],
            points=points,
            box=box,
            undoable_edits=answer.undoable_edits,
            image_id=embedded.image_id,
            original_size=size_message(embedded.embedding.frame.original_size),
            decode=duration(answer.timings[Stage.MASK_DECODE]),
        ),
    )
