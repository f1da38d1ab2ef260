"""Estimates and warps on known camera motion."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samserve.domain import homography as plane
from samserve.domain.camera_motion import Thumbnail, estimate_motion, warp_mask
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.masks import upsample_mask

with Image.open(Path(__file__).parents[3] / "docs" / "photos" / "coffee.jpg") as photo:
    PHOTO = np.asarray(photo.convert("L"))
SIZE = Size(300, 400)


def camera(dx: float, dy: float, degrees: float, zoom: float) -> plane.Homography:
    """From a frame's pixels to the photo's."""
    turn = np.vstack([cv2.getRotationMatrix2D((200, 150), degrees, zoom), [0, 0, 1]])
    return np.asarray(np.array([[1.0, 0, 60 + dx], [0, 1, 50 + dy], [0, 0, 1]]) @ turn, dtype=np.float64)


def frame(pose: plane.Homography) -> Thumbnail:
    view = cv2.warpPerspective(PHOTO, pose, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return Thumbnail(np.asarray(cv2.resize(view, (320, 240), interpolation=cv2.INTER_AREA), np.uint8), SIZE)


@pytest.mark.parametrize("move", [(0, 0, 0, 1), (6, -3, 0, 1), (15, 10, 2, 1), (30, 5, -3, 1.05), (50, 0, 0, 0.95)])
def test_the_cameras_motion_is_found(move: tuple[float, float, float, float]) -> None:
    still, moved = camera(0, 0, 0, 1), camera(*move)
    found = estimate_motion(frame(still), frame(moved), plane.IDENTITY)
    assert found is not None
    corners = plane.corners(SIZE)
    expected = plane.apply(plane.between(still, moved), corners)
    np.testing.assert_allclose(plane.apply(found, corners), expected, atol=2.5)


def test_another_scene_and_an_empty_one_do_not_match() -> None:
    known = frame(camera(0, 0, 0, 1))
    noise = np.random.default_rng(1).integers(0, 255, (240, 320), dtype=np.uint8)
    for other in (noise, np.full((240, 320), 90, np.uint8)):
        thumbnail = Thumbnail(other, SIZE)
        assert estimate_motion(known, thumbnail, plane.IDENTITY) is None
        assert estimate_motion(thumbnail, known, plane.IDENTITY) is None


def disc(x: float = 14, y: float = 10, radius: float = 6) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[:32, :32]
    return np.asarray(radius - np.hypot(columns - x, rows - y), dtype=np.float32)


def test_unmoved_a_mask_is_that_of_sams_own_upsampling() -> None:
    image = ImageFrame(SIZE, 128)
    warped = warp_mask(disc(), 0.5, image, plane.IDENTITY, SIZE)
    expected = upsample_mask(disc(), 0.5, image)
    # One interpolation in place of two.
    assert np.mean(warped.full() != expected.full()) < 0.003
    assert warped.stability_score == pytest.approx(expected.stability_score, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-10, 10), st.floats(0.8, 1.2))
def test_a_mask_lands_where_the_points_of_its_object_do(dx: float, dy: float, degrees: float, zoom: float) -> None:
    image = ImageFrame(SIZE, 128)
    to_keyframe = plane.between(camera(0, 0, 0, 1), camera(dx, dy, degrees, zoom))
    known = upsample_mask(disc(), 0.5, image).full()
    warped = warp_mask(disc(), 0.5, image, to_keyframe, SIZE).full()
    ys, xs = np.mgrid[: SIZE.height : 7, : SIZE.width : 7]
    targets = plane.apply(to_keyframe, np.stack([xs, ys], axis=-1) + 0.5)
    inside = ((targets >= 0) & (targets < [SIZE.width, SIZE.height])).all(axis=-1)
    columns, rows = targets[inside].astype(int).T
    assert np.mean(known[rows, columns] != warped[ys[inside], xs[inside]]) < 0.02
    assert not warped[ys[~inside], xs[~inside]].any() or np.mean(warped[ys[~inside], xs[~inside]]) < 0.05


def test_a_smaller_mask_is_the_same_mask() -> None:
    image = ImageFrame(SIZE, 128)
    half = warp_mask(disc(), 0.5, image, plane.scaling(2, 2), Size(150, 200))
    full = upsample_mask(disc(), 0.5, image).full()
    assert half.original_size == (150, 200)
    assert np.mean(half.full() != full[1::2, 1::2]) < 0.01


def test_a_mask_out_of_view_is_empty() -> None:
    away = np.array([[1.0, 0, 3000], [0, 1, 0], [0, 0, 1]])
    assert warp_mask(disc(), 0.5, ImageFrame(SIZE, 128), away, SIZE).area == 0
    nothing = np.full((32, 32), -9, np.float32)
    assert warp_mask(nothing, 0.5, ImageFrame(SIZE, 128), plane.IDENTITY, SIZE).area == 0
