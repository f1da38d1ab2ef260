"""A prompt that is edited, and what each of its states is refined from."""

from dataclasses import dataclass, replace

import numpy as np

from samserve.domain.errors import InvalidPrompt
from samserve.domain.low_res_masks import LowResMask
from samserve.domain.prompts import ObjectPrompt

MAX_UNDOABLE = 32
"""Bounds the logits that one session holds: 32 of SAM's are 8 MiB."""


@dataclass(frozen=True, slots=True)
class AddPoint:
    """A point (x, y), label 1 foreground or 0 background."""

    x: float
    y: float
    label: int
    name: str = "add_point"


@dataclass(frozen=True, slots=True)
class MovePoint:
    """The point at this index, elsewhere."""

    index: int
    x: float
    y: float
    name: str = "move_point"


@dataclass(frozen=True, slots=True)
class RemovePoint:
    """The point at this index, gone."""

    index: int
    name: str = "remove_point"


@dataclass(frozen=True, slots=True)
class SetBox:
    """The box XYXY, or None for none."""

    box: tuple[float, float, float, float] | None
    name: str = "set_box"


@dataclass(frozen=True, slots=True)
class ClearPrompt:
    """No points, no box."""

    name: str = "clear_prompt"


@dataclass(frozen=True, slots=True)
class Undo:
    """The prompt as it was before the last edit."""

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
        """Whether there is nothing to segment by."""
        return not self.points and self.box is None

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is one point, which may mean a whole, a part or a subpart."""
        return self.prompt().is_ambiguous

    def prompt(self) -> ObjectPrompt:
        """As the decoder is asked."""
        return ObjectPrompt(
            np.array([(x, y) for x, y, _ in self.points], dtype=np.float64).reshape(-1, 2),
            np.array([label for _, _, label in self.points], dtype=np.int32),
            None if self.box is None else np.array(self.box, dtype=np.float64),
            self.mask_input,
        )


class PromptHistory:
    """The states of a prompt, the present one last.

    What is added refines the present state's answer, as SAM's predictor refines with its last logits. What is moved
    refines what the present state refines, so that the answer depends on where a point was dragged to and not on the
    way. What is removed leaves no trace: the answer begins anew, from what is left.
    """

    def __init__(self) -> None:
        self._states = [PromptState()]
        self._edits: list[Edit | None] = [None]
        self._answer: tuple[PromptState, LowResMask] | None = None

    @property
    def current(self) -> PromptState:
        """The present state."""
        return self._states[-1]

    @property
    def depth(self) -> int:
        """How many edits can be undone."""
        return len(self._states) - 1

    def answered(self, state: PromptState, low_res_mask: LowResMask) -> None:
        """Remember the logits of a state's best mask."""
        self._answer = (state, low_res_mask)

    def changed(self, edit: Edit) -> PromptState:
        """The state after an edit; nothing is changed yet.

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
        """Make a state that `changed` gave the present one."""
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
        # Where the present state's decode was cancelled, what it refines is the last answer there is.
        if self._answer is not None and self._answer[0] is self.current:
            return self._answer[1]
        return self.current.mask_input

    def _check_index(self, name: str, index: int) -> None:
        if not 0 <= index < len(self.current.points):
            raise InvalidPrompt("index", f"must be below the number of points, {len(self.current.points)}, got {index}")
