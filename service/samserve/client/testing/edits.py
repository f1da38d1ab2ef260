"""The state of an interactive session's prompt."""

from samserve.client.errors import InvalidRequest
from samserve.v1 import segmentation_pb2 as pb


class EditedPrompt:
    """A prompt and its earlier states. Unlike in a real session, `undo` reverts exactly one edit.

    Attributes:
        start: the session's first message.
        prompt: as it is now.
    """

    def __init__(self, start: pb.StartSession) -> None:
        self.start = start
        self.prompt = pb.Prompt()
        self._earlier: list[pb.Prompt] = []

    @property
    def undoable_edits(self) -> int:
        """Number of edits that can be undone."""
        return len(self._earlier)

    @property
    def multimask_output(self) -> bool:
        """Return True if the prompt is a single point and three masks were requested."""
        return self.start.multimask_output and len(self.prompt.points) == 1 and not self.prompt.HasField("box")

    def edit(self, request: pb.SegmentStreamRequest) -> None:
        """Apply one edit.

        Raises:
            InvalidRequest: there is no such point, or nothing to undo.
        """
        kind = request.WhichOneof("edit")
        if kind == "undo":
            if not self._earlier:
                raise InvalidRequest("undo", "there is nothing to undo")
            self.prompt = self._earlier.pop()
            return
        changed = pb.Prompt()
        changed.CopyFrom(self.prompt)
        match kind:
            case "add_point":
                changed.points.append(request.add_point)
            case "move_point":
                point = changed.points[self._index("move_point", request.move_point.index)]
                point.x, point.y = request.move_point.x, request.move_point.y
            case "remove_point":
                del changed.points[self._index("remove_point", request.remove_point.index)]
            case "set_box":
                changed.box.CopyFrom(request.set_box)
            case "remove_box":
                changed.ClearField("box")
            case "clear_prompt":
                changed.Clear()
            case _:
                raise InvalidRequest("edit", "is missing")
        self._earlier.append(self.prompt)
        self.prompt = changed

    def _index(self, edit: str, index: int) -> int:
        if index >= len(self.prompt.points):
            raise InvalidRequest(f"{edit}.index", f"is {index}, and the prompt has {len(self.prompt.points)} points")
        return index
