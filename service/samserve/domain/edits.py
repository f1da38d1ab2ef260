"""The editable prompt of an interactive session, and the logits that each of its states refines."""

from dataclasses import dataclass, replace

import numpy as np

from samserve.domain.errors import InvalidPrompt
from samserve.domain.low_res_masks import LowResMask
from samserve.domain.prompts import ObjectPrompt

MAX_UNDOABLE = 32
"""Limits the logits that one session holds: 32 of SAM's take 8 MiB."""


@dataclass(frozen=True, slots=True)
class AddPoint:
    """Add a point (x, y) with label 1, foreground, or 0, background."""

    x: float
    y: float
    label: int
    name: str = "add_point"


@dataclass(frozen=True, slots=True)
class MovePoint:
    """Move the point at this index."""

    index: int
    x: float
    y: float
    name: str = "move_point"


@dataclass(frozen=True, slots=True)
class RemovePoint:
    """Remove the point at this index."""

    index: int
    name: str = "remove_point"


@dataclass(frozen=True, slots=True)
class SetBox:
    """Set the box XYXY, or remove it if None."""

    box: tuple[float, float, float, float] | None
    name: str = "set_box"


@dataclass(frozen=True, slots=True)
class ClearPrompt:
    """Remove all points and the box."""

    name: str = "clear_prompt"


@dataclass(frozen=True, slots=True)
class Undo:
    """Undo the last edit."""

    name: str = "undo"


Edit = AddPoint | MovePoint | RemovePoint | SetBox | ClearPrompt | Undo


@dataclass(frozen=True, slots=True, eq=False)
class PromptState:
    """The prompt after an edit.

    Attributes:
        points: (x, y, label).
        box: XYXY.
        mask_input: float32 `[M, M]`, logits of the answer that this one refines; None to begin anew.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask_input: LowResMask | None = None

    @property
    def is_empty(self) -> bool:
        """True if there are no points and no box."""
        return not self.points and self.box is None

    @property
    def is_ambiguous(self) -> bool:
        """True if the prompt is a single point, which may mean a whole, a part or a subpart."""
        return self.prompt().is_ambiguous

    def prompt(self) -> ObjectPrompt:
        """The prompt for the decoder."""
        return ObjectPrompt(
            np.array([(x, y) for x, y, _ in self.points], dtype=np.float64).reshape(-1, 2),
            np.array([label for _, _, label in self.points], dtype=np.int32),
            None if self.box is None else np.array(self.box, dtype=np.float64),
            self.mask_input,
        )


class PromptHistory:
    """The states of a prompt; the last one is current.

    An added point or box refines the current state's answer, as SAM's predictor refines its last logits. A moved point
    refines what the current state refines, so that the answer depends on where a drag ends, not on its path. A removal
    starts anew from what is left, so that removed points have no effect.
    """

    def __init__(self) -> None:
        self._states = [PromptState()]
        self._edits: list[Edit | None] = [None]
        self._answer: tuple[PromptState, LowResMask] | None = None

    @property
    def current(self) -> PromptState:
        """The current state."""
        return self._states[-1]

    @property
    def depth(self) -> int:
        """Number of edits that can be undone."""
        return len(self._states) - 1

    def answered(self, state: PromptState, low_res_mask: LowResMask) -> None:
        """Store the logits of a state's best mask."""
        self._answer = (state, low_res_mask)

    def changed(self, edit: Edit) -> PromptState:
        """Return the state after an edit, without changing the history.

        Raises:
            InvalidPrompt: there is no such point, or nothing to undo.
        """
        now = self.current
        match edit:
            case AddPoint(x, y, label):
                return replace(now, points=(*now.points, (x, y, label)), mask_input=self._refined())
            case MovePoint(index, x, y):
                self._check_index(edit.name, index)
                points = list(now.points)
                points[index] = (x, y, points[index][2])
                return replace(now, points=tuple(points))
            case RemovePoint(index):
                self._check_index(edit.name, index)
                return PromptState((*now.points[:index], *now.points[index + 1 :]), now.box)
            case SetBox(None):
                return PromptState(now.points)
            case SetBox(box):
                return replace(now, box=box, mask_input=now.mask_input if now.box is not None else self._refined())
            case ClearPrompt():
                return PromptState()
            case Undo():
                if not self.depth:
                    raise InvalidPrompt("", "no edit to undo")
                return self._states[-2]

    def push(self, state: PromptState, edit: Edit) -> None:
        """Make a state returned by `changed` the current one."""
        if isinstance(edit, Undo):
            self._states.pop()
            self._edits.pop()
        elif self._continues(edit):
            self._states[-1] = state
        else:
            self._states.append(state)
            self._edits.append(edit)
        if self.depth > MAX_UNDOABLE:
            del self._states[0], self._edits[0]

    def _continues(self, edit: Edit) -> bool:
        last = self._edits[-1]
        if isinstance(edit, MovePoint):
            return isinstance(last, MovePoint) and last.index == edit.index
        return isinstance(edit, SetBox) and isinstance(last, SetBox) and None not in (edit.box, last.box)

    def _refined(self) -> LowResMask | None:
        # If the current state's decode was cancelled, the last answer is the one that it refines.
        if self._answer is not None and self._answer[0] is self.current:
            return self._answer[1]
        return self.current.mask_input

    def _check_index(self, name: str, index: int) -> None:
        if not 0 <= index < len(self.current.points):
            raise InvalidPrompt("index", f"must be below the number of points, {len(self.current.points)}, got {index}")
