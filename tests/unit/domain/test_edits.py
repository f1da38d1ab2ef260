"""A prompt that is edited."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain.edits import (
    MAX_UNDOABLE,
    AddPoint,
    ClearPrompt,
    Edit,
    MovePoint,
    PromptHistory,
    RemovePoint,
    SetBox,
    Undo,
)
from samserve.domain.errors import InvalidPrompt
from samserve.domain.low_res_masks import LowResMask

BOX = (1.0, 2.0, 30.0, 40.0)


def logits(value: float) -> LowResMask:
    return np.full((4, 4), value, dtype=np.float32)


def apply(history: PromptHistory, edit: Edit, answer: float | None = None) -> None:
    history.push(history.changed(edit), edit)
    if answer is not None:
        history.answered(history.current, logits(answer))


def refined_from(history: PromptHistory) -> float | None:
    mask_input = history.current.mask_input
    return None if mask_input is None else float(mask_input[0, 0])


def test_an_added_point_refines_the_previous_mask() -> None:
    history = PromptHistory()
    apply(history, AddPoint(1, 1, 1), answer=1)
    assert refined_from(history) is None
    apply(history, AddPoint(2, 2, 0), answer=2)
    assert refined_from(history) == 1
    apply(history, SetBox(BOX))
    assert refined_from(history) == 2


def test_an_answer_that_was_cancelled_is_refined_from_the_one_before() -> None:
    history = PromptHistory()
    apply(history, AddPoint(1, 1, 1), answer=1)
    apply(history, AddPoint(2, 2, 0))
    apply(history, AddPoint(3, 3, 0))
    assert refined_from(history) == 1


def test_only_the_final_position_of_a_moved_point_counts() -> None:
    history = PromptHistory()
    apply(history, AddPoint(1, 1, 1), answer=1)
    apply(history, AddPoint(2, 2, 0), answer=2)
    for x in (5, 6, 7):
        apply(history, MovePoint(1, x, 9), answer=x)
    assert refined_from(history) == 1
    assert history.current.points == ((1, 1, 1), (7, 9, 0))
    apply(history, Undo())
    assert history.current.points == ((1, 1, 1), (2, 2, 0))


def test_a_removed_point_leaves_no_mask_input() -> None:
    history = PromptHistory()
    apply(history, AddPoint(1, 1, 1), answer=1)
    apply(history, SetBox(BOX), answer=2)
    apply(history, RemovePoint(0))
    assert (history.current.points, history.current.box, refined_from(history)) == ((), BOX, None)
    apply(history, SetBox(None))
    assert history.current.is_empty


def test_undo_restores_the_prompt_and_its_mask_input() -> None:
    history = PromptHistory()
    apply(history, AddPoint(1, 1, 1), answer=1)
    apply(history, AddPoint(2, 2, 1), answer=2)
    before = history.current
    apply(history, ClearPrompt(), answer=3)
    apply(history, Undo())
    assert history.current is before


@given(st.lists(st.sampled_from([AddPoint(1, 1, 1), SetBox(BOX), SetBox(None), ClearPrompt()]), max_size=MAX_UNDOABLE))
def test_as_many_undos_as_edits_lead_back_to_the_beginning(edits: list[Edit]) -> None:
    history = PromptHistory()
    for number, edit in enumerate(edits):
        apply(history, edit, number)
    while history.depth:
        apply(history, Undo())
    assert history.current.is_empty
    with pytest.raises(InvalidPrompt, match="no edit"):
        history.changed(Undo())


def test_the_history_is_bounded() -> None:
    history = PromptHistory()
    for number in range(3 * MAX_UNDOABLE):
        apply(history, AddPoint(number, 0, 1), number)
    assert history.depth == MAX_UNDOABLE


@pytest.mark.parametrize("edit", [MovePoint(1, 0, 0), RemovePoint(1)])
def test_a_point_that_is_not_there_is_refused(edit: Edit) -> None:
    history = PromptHistory()
    apply(history, AddPoint(1, 1, 1))
    with pytest.raises(InvalidPrompt, match="must be below the number of points, 1, got 1"):
        history.changed(edit)
