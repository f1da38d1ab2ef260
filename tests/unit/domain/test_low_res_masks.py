"""Box, interior point and membership from low-resolution logits, against masks at full size."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samserve.domain import homography as plane
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.low_res_masks import bounding_box, contains, interior_point, overlap, seen_from, visible
from samserve.domain.masks import upsample_mask

SIDE, IMAGE_SIZE = 32, 128


def frames_of(sides: st.SearchStrategy[int]) -> st.SearchStrategy[ImageFrame]:
    return st.builds(lambda height, width: ImageFrame(Size(height, width), IMAGE_SIZE), sides, sides)


frames = frames_of(st.integers(20, 400))
# Of a strip a few low-resolution rows high, upsampling between them leaves more or less than a pixel decides.
no_strips = frames_of(st.integers(100, 400))


def blob(frame: ImageFrame, x: float, y: float, radius: float) -> npt.NDArray[np.float32]:
    """Logits of a disc, its place and size in shares of the image."""
    height, width = (side * SIDE / IMAGE_SIZE for side in frame.input_size)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    distance = np.hypot((columns - x * width) / width, (rows - y * height) / height)
    return np.asarray(20 * (radius - distance), dtype=np.float32)


blobs = st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7), st.floats(0.15, 0.3))


@settings(max_examples=60, deadline=None)
@given(frames, blobs, st.floats(0, 1), st.floats(0, 1))
def test_contains_agrees_with_the_full_mask_but_at_its_edge(
    frame: ImageFrame, shape: tuple[float, float, float], x: float, y: float
) -> None:
    logits = blob(frame, *shape)
    height, width = frame.original_size
    row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
    pixel = int(np.ceil(max(frame.original_size) / SIDE)) + 1
    full = np.pad(upsample_mask(logits, 0.5, frame).full(), pixel, mode="edge")
    around = full[row : row + 2 * pixel + 1, column : column + 2 * pixel + 1]
    if around.all() or not around.any():
        assert contains(logits, frame, np.array([x * width, y * height])) == bool(around[0, 0])


@given(no_strips, blobs)
def test_the_box_is_that_of_the_full_mask_to_one_low_resolution_pixel(
    frame: ImageFrame, shape: tuple[float, float, float]
) -> None:
    logits = blob(frame, *shape)
    box = bounding_box(visible(logits, frame), frame)
    full = upsample_mask(logits, 0.5, frame)
    if box is not None and full.area:
        np.testing.assert_allclose(box, full.bbox, atol=1.5 * max(frame.original_size) / SIDE + 1)


@given(frames, blobs)
def test_the_interior_point_lies_inside(frame: ImageFrame, shape: tuple[float, float, float]) -> None:
    logits = blob(frame, *shape)
    point = interior_point(visible(logits, frame), frame)
    if point is not None:
        assert contains(logits, frame, point)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_pixel_is_farther_from_the_edge_than_the_interior_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 12)) < 0.8
    point = interior_point(mask, ImageFrame(Size(12, 12), 12))
    assert point is not None
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    distances = np.hypot(*(np.argwhere(mask)[:, None] - outside).T).min(axis=0)
    column, row = point - 0.5
    assert np.hypot(*(np.array([row, column]) - outside).T).min() == pytest.approx(distances.max())


def test_the_interior_point_of_a_disc_is_its_middle_and_of_a_ring_is_not() -> None:
    frame = ImageFrame(Size(128, 128), IMAGE_SIZE)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(columns - 16, rows - 16)
    disc, ring = interior_point(distance < 9, frame), interior_point((distance > 5) & (distance < 12), frame)
    assert disc is not None
    assert ring is not None
    np.testing.assert_allclose(disc, [66, 66], atol=4)
    assert 5 < np.hypot(*(ring / 4 - 16.5)) < 12


def test_an_empty_mask_has_neither_box_nor_interior_point() -> None:
    frame = ImageFrame(Size(128, 128), IMAGE_SIZE)
    empty = np.zeros((SIDE, SIDE), dtype=np.bool_)
    assert bounding_box(empty, frame) is None
    assert interior_point(empty, frame) is None
    assert overlap(empty, empty) == 0


def test_logits_in_the_padding_are_ignored() -> None:
    frame = ImageFrame(Size(64, 128), IMAGE_SIZE)
    mask = visible(np.ones((SIDE, SIDE), dtype=np.float32), frame)
    assert mask[:16].all()
    assert not mask[16:].any()
    assert not contains(np.ones((SIDE, SIDE), dtype=np.float32), frame, np.array([10.0, 64.1]))


@given(frames, blobs)
def test_warping_by_the_identity_keeps_the_mask(frame: ImageFrame, shape: tuple[float, float, float]) -> None:
    logits = blob(frame, *shape)
    same = seen_from(logits, frame, plane.IDENTITY, frame)
    assert overlap(same, visible(logits, frame)) > 0.9 or not visible(logits, frame).any()
