"""Ranking of masks by text, and the crop that is compared with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samserve.domain.errors import InvalidPrompt
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.masks import Mask
from samserve.domain.texts import (
    MAX_TEXT_CHARACTERS,
    MAX_TEXTS,
    check_texts,
    mask_in_square,
    most_similar,
    square_around,
)

# Few values, so that there are equals.
SIMILARITIES = arrays(np.float32, st.integers(0, 30), elements=st.sampled_from([-0.5, 0.0, 0.25, 0.5]))


def mask_of(pixels: np.ndarray[tuple[int, int], np.dtype[np.bool_]], top: int, left: int, size: Size) -> Mask:
    return Mask(size, np.asfortranarray(pixels), top, left, 0.9, 0.9, np.zeros((0, 0), np.float32))


@given(SIMILARITIES, st.integers(1, 5))
def test_the_most_similar_come_first_and_of_equals_the_earlier(
    similarities: np.ndarray[tuple[int], np.dtype[np.float32]], count: int
) -> None:
    chosen = most_similar(similarities, count)
    assert chosen == sorted(range(len(similarities)), key=lambda index: (-similarities[index], index))[:count]


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        (["a dog", " \n"], "prompts[1].text"),
        (["x" * (MAX_TEXT_CHARACTERS + 1)], "prompts[0].text"),
        (["a dog"] * (MAX_TEXTS + 1), "prompts"),
    ],
)
def test_refusal_names_the_text(texts: list[str], field: str) -> None:
    with pytest.raises(InvalidPrompt) as refused:
        check_texts(texts)
    assert refused.value.field == field


def test_as_much_as_is_allowed_is_taken() -> None:
    check_texts(["x" * MAX_TEXT_CHARACTERS] * MAX_TEXTS)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_square_holds_the_object_and_its_surroundings(height: int, width: int, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - rows)), data.draw(st.integers(0, width - columns))
    size = Size(height, width)
    mask = mask_of(np.ones((rows, columns), np.bool_), top, left, size)
    square = square_around(mask, ImageFrame(size, max(size)))
    assert square.size.height == square.size.width >= max(rows, columns)
    # A pixel may be lost to rounding.
    assert square.x0 <= left + 0.5
    assert square.y0 <= top + 0.5
    assert square.x1 >= left + columns - 0.5
    assert square.y1 >= top + rows - 0.5
    # What is thinner than the space between two samples may fall between them.
    if min(rows, columns) * 64 >= square.size.height:
        assert mask_in_square(mask, ImageFrame(size, max(size)), square, 64).any()


def test_mask_in_square_is_the_mask_where_the_square_is_the_image() -> None:
    window = np.random.default_rng(1).random((5, 7)) < 0.5
    size = Size(16, 16)
    mask = mask_of(window, 4, 8, size)
    assert (mask_in_square(mask, ImageFrame(size, 16), CropBox(0, 0, 16, 16), 16) == mask.full()).all()
    # The same photo at half its size, each sample the pixel under its centre.
    halved = mask_in_square(mask, ImageFrame(size, 8), CropBox(0, 0, 8, 8), 16)
    assert (halved == mask.full()).all()
