"""Plane maps between frames."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from samserve.domain import homography as plane
from samserve.domain.geometry import Size
from samserve.domain.keyframes import KeyframePolicy, motion, scene_change

SIZE = Size(480, 640)


@st.composite
def homographies(draw: st.DrawFn) -> plane.Homography:
    """Moves that a hand-held camera makes between two frames."""
    angle, zoom = draw(st.floats(-0.3, 0.3)), draw(st.floats(0.8, 1.25))
    dx, dy = draw(st.floats(-100, 100)), draw(st.floats(-100, 100))
    px, py = draw(st.floats(-2e-4, 2e-4)), draw(st.floats(-2e-4, 2e-4))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    return np.array([[cos, -sin, dx], [sin, cos, dy], [px, py, 1.0]])


points = st.tuples(st.floats(0, 640), st.floats(0, 480)).map(lambda point: np.array(point))


@given(homographies(), points, st.floats(0.01, 100))
def test_there_and_back_again(homography: plane.Homography, point: npt.NDArray[np.float64], scale: float) -> None:
    back = plane.inverse(scale * homography)
    np.testing.assert_allclose(plane.apply(back, plane.apply(homography, point)), point, atol=1e-6)


@given(homographies(), homographies(), points, st.floats(-3, 3).filter(lambda scale: abs(scale) > 0.01))
def test_two_frames_known_to_one_plane_are_known_to_each_other(
    first: plane.Homography, second: plane.Homography, point: npt.NDArray[np.float64], scale: float
) -> None:
    between = plane.between(first, scale * second)
    np.testing.assert_allclose(
        plane.apply(first, plane.apply(between, point)), plane.apply(second, point), atol=1e-4, rtol=1e-6
    )


@given(homographies())
def test_camera_motions_are_plausible(homography: plane.Homography) -> None:
    assert plane.is_plausible(homography, SIZE)


def test_wrong_estimates_are_not_plausible() -> None:
    mirrored = np.array([[-1.0, 0, 640], [0, 1, 0], [0, 0, 1]])
    line = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])
    speck = plane.scaling(0.01, 0.01)
    behind = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    for wrong in (mirrored, line, speck, behind, np.full((3, 3), np.nan)):
        assert not plane.is_plausible(wrong, SIZE)


extremes = st.lists(
    st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1.0, 1e300, -1e300, 5e-324])),
    min_size=9,
    max_size=9,
).map(lambda numbers: np.array(numbers).reshape(3, 3))


@given(extremes, extremes)
def test_any_nine_numbers_are_judged_without_a_warning(first: plane.Homography, second: plane.Homography) -> None:
    if plane.is_invertible(first) and plane.is_invertible(second):
        between = plane.between(first, second)
        if plane.is_plausible(between, SIZE):
            assert motion(between, SIZE) < 100


@given(homographies(), st.sampled_from([1e-300, 1e300]))
def test_scaling_a_homography_does_not_change_it(homography: plane.Homography, scale: float) -> None:
    assert plane.is_invertible(scale * homography)
    np.testing.assert_allclose(plane.between(homography, scale * homography), plane.IDENTITY, atol=1e-9)


def test_points_behind_the_horizon_are_nowhere() -> None:
    tilted = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    assert np.isnan(plane.apply(tilted, np.array([200.0, 0.0]))).all()
    assert motion(tilted, SIZE) == np.inf


def scene(seed: int) -> npt.NDArray[np.uint8]:
    """A grey thumbnail with large shapes."""
    coarse = np.random.default_rng(seed).integers(0, 200, (6, 8))
    return np.kron(coarse, np.ones((40, 40))).astype(np.uint8)


def test_the_same_scene_has_not_changed_wherever_the_camera_went() -> None:
    shift = 80
    moved = np.roll(scene(1), -shift // 2, axis=1)
    moved[:, -shift // 2 :] = 0
    to_keyframe = np.array([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]])
    # The thumbnail is half the frame's size, so that the two units cannot be mistaken for each other.
    assert scene_change(scene(1), moved, to_keyframe, SIZE) < 0.03
    assert scene_change(scene(1), moved, plane.IDENTITY, SIZE) > 0.06


def test_another_scene_has_changed_and_other_light_has_not() -> None:
    assert scene_change(scene(1), scene(2), plane.IDENTITY, SIZE) > 0.1
    brighter = (scene(1) + np.uint8(40)).astype(np.uint8)
    assert scene_change(scene(1), brighter, plane.IDENTITY, SIZE) < 0.01


def test_frames_without_overlap_have_changed() -> None:
    away = np.array([[1.0, 0, 5000], [0, 1, 0], [0, 0, 1]])
    assert scene_change(scene(1), scene(1), away, SIZE) == 1


def test_a_keyframe_is_outdated_by_change_or_motion_or_age() -> None:
    policy = KeyframePolicy(max_scene_change=0.1, max_motion=0.2, max_age_seconds=3)
    assert not policy.is_outdated(0.1, 0.2, 3)
    assert policy.is_outdated(0.11, 0, 0)
    assert policy.is_outdated(0, 0.21, 0)
    assert policy.is_outdated(0, 0, 3.1)
