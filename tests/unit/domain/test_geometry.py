import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain.geometry import ImageFrame, Size

sides = st.integers(1, 5000)


@given(sides, sides)
def test_longest_side_fills_the_input_and_the_other_keeps_the_aspect_ratio(height: int, width: int) -> None:
    input_size = ImageFrame(Size(height, width), 1024).input_size
    assert max(input_size) == 1024
    assert abs(min(input_size) - 1024 * min(height, width) / max(height, width)) <= 1


def test_input_size_rounds_as_sam_does() -> None:
    assert ImageFrame(Size(1200, 1800), 1024).input_size == Size(683, 1024)
    assert ImageFrame(Size(1, 5000), 1024).input_size == Size(1, 1024)


@given(sides, sides)
def test_corners_of_the_image_map_to_corners_of_the_input(height: int, width: int) -> None:
    frame = ImageFrame(Size(height, width), 1024)
    corners = np.array([[0.0, 0.0], [width, height]])
    expected = [[0, 0], [frame.input_size.width, frame.input_size.height]]
    np.testing.assert_allclose(frame.to_input(corners), expected, rtol=1e-6)
