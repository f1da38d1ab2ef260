"""Prompt flags: accepted values, and marks on the overlay."""

import argparse

import pytest

from samserve.cli.prompt import PromptFlags, box, point


def test_a_point_is_on_the_object_unless_its_label_says_otherwise() -> None:
    assert point("3,4.5") == (3.0, 4.5, 1)
    assert point("3,4.5,1") == (3.0, 4.5, 1)
    assert point("3,4.5,0") == (3.0, 4.5, 0)


@pytest.mark.parametrize("text", ["", "3", "3,", "3,four", "3,4,2", "3,4,1,1"])
def test_anything_else_is_no_point(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        point(text)


def test_a_box_is_two_corners() -> None:
    assert box("1,2,3,4.5") == (1.0, 2.0, 3.0, 4.5)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "1,2,3,4,5"])
def test_anything_else_is_no_box(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        box(text)


def test_normalized_prompts_are_marked_in_the_photos_pixels() -> None:
    marks = PromptFlags(((0.5, 0.25, 0),), (0, 0, 1, 0.5), normalized=True).marks((200, 400))
    assert list(marks.points) == [(200, 50, 0)]
    assert marks.box == (0, 0, 400, 100)


def test_prompts_in_pixels_are_marked_where_they_are() -> None:
    marks = PromptFlags(((30, 20, 1),), (1, 2, 3, 4)).marks((200, 400))
    assert list(marks.points) == [(30, 20, 1)]
    assert marks.box == (1, 2, 3, 4)
