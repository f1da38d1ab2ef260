from typing import Any

import numpy as np
import pytest

from samserve.domain.errors import InvalidPrompt
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.prompts import (
    CoordinateSpace,
    ObjectPrompt,
    PointLabel,
    PromptLimits,
    batch_prompts,
    check_inside,
    check_prompts,
)

LIMITS = PromptLimits(max_prompts=3, max_points_per_prompt=4)
SIZE = Size(100, 200)


def clicks(*points: tuple[float, float, int]) -> ObjectPrompt:
    coords = np.array([point[:2] for point in points], dtype=np.float64).reshape(-1, 2)
    return ObjectPrompt(coords, np.array([point[2] for point in points], dtype=np.int32))


def box(*xyxy: float) -> ObjectPrompt:
    return ObjectPrompt(box=np.array(xyxy, dtype=np.float64))


def logits(side: int, value: float = 0.0) -> ObjectPrompt:
    return ObjectPrompt(mask_input=np.full((side, side), value, dtype=np.float32))


@pytest.mark.parametrize(
    ("prompts", "field"),
    [
        ([], "prompts"),
        ([box(0, 0, 1, 1)] * 4, "prompts"),
        ([ObjectPrompt()], "prompts[0]"),
        ([clicks(*[(1.0, 1.0, 1)] * 5)], "prompts[0].points"),
        ([box(0, 0, 1, 1), clicks((1, 1, 1), (float("nan"), 1, 1))], "prompts[1].points[1].x"),
        ([clicks((1, float("inf"), 1))], "prompts[0].points[0].y"),
        ([clicks((1, 1, 0), (1, 1, 2))], "prompts[0].points[1].label"),
        ([clicks((1, 1, -1))], "prompts[0].points[0].label"),
        ([box(5, 0, 5, 1)], "prompts[0].box.x1"),
        ([box(0, 9, 5, 1)], "prompts[0].box.y1"),
        ([box(0, 0, float("nan"), 1)], "prompts[0].box.x1"),
        ([logits(8)], "prompts[0].mask_input.size"),
        ([logits(16, float("inf"))], "prompts[0].mask_input.data"),
    ],
)
def test_malformed_prompts_are_refused_by_field(prompts: list[ObjectPrompt], field: str) -> None:
    with pytest.raises(InvalidPrompt) as refusal:
        check_prompts(prompts, LIMITS, low_res_size=16)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("prompt", "space", "field"),
    [
        (clicks((200.5, 1, 1)), CoordinateSpace.PIXELS, "prompts[0].points[0].x"),
        (clicks((1, 1, 1), (1, -0.5, 1)), CoordinateSpace.PIXELS, "prompts[0].points[1].y"),
        (box(1, 1, 20, 101), CoordinateSpace.PIXELS, "prompts[0].box.y1"),
        (box(-1, 1, 20, 20), CoordinateSpace.PIXELS, "prompts[0].box.x0"),
        (clicks((1.5, 0.5, 1)), CoordinateSpace.NORMALIZED, "prompts[0].points[0].x"),
    ],
)
def test_coordinates_outside_the_image_are_refused_by_field(
    prompt: ObjectPrompt, space: CoordinateSpace, field: str
) -> None:
    with pytest.raises(InvalidPrompt) as refusal:
        check_inside([prompt], space, SIZE)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("x", "space", "told"),
    [
        (1234567.5, CoordinateSpace.PIXELS, r"within \[0, 200\] of the image, got 1234567\.5$"),
        (np.nextafter(np.float32(200), np.float32(201)), CoordinateSpace.PIXELS, r"got 200\.00002$"),
        (
            np.nextafter(np.float32(1), np.float32(2)),
            CoordinateSpace.NORMALIZED,
            r"within \[0, 1\] .*, got 1\.0000001$",
        ),
    ],
)
def test_a_refusal_prints_all_digits_of_a_coordinate(x: float, space: CoordinateSpace, told: str) -> None:
    with pytest.raises(InvalidPrompt, match=told):
        check_inside([clicks((x, 0, 1))], space, SIZE)


def test_the_borders_of_the_image_belong_to_it() -> None:
    check_inside([box(0, 0, 200, 100), clicks((200, 100, 1), (0, 0, 0))], CoordinateSpace.PIXELS, SIZE)


def batch(*prompts: ObjectPrompt, space: CoordinateSpace = CoordinateSpace.PIXELS) -> Any:
    return batch_prompts(prompts, space, ImageFrame(SIZE, 400), low_res_size=16)


def test_points_without_a_box_get_sams_padding_point() -> None:
    rows = batch(clicks((10, 20, 1)))
    assert rows.point_labels.tolist() == [[1, -1]]
    assert rows.point_coords.tolist() == [[[20, 40], [0, 0]]]


def test_a_box_becomes_two_corners_and_no_padding_point() -> None:
    prompt = ObjectPrompt(np.array([[10.0, 20.0]]), np.array([0], np.int32), np.array([1.0, 2.0, 3.0, 4.0]))
    rows = batch(prompt)
    assert rows.point_labels.tolist() == [[0, 2, 3]]
    assert rows.point_coords.tolist() == [[[20, 40], [2, 4], [6, 8]]]


def test_shorter_prompts_are_padded_with_ignored_points() -> None:
    rows = batch(clicks((1, 1, 1), (2, 2, 0)), box(0, 0, 5, 5), logits(16, 2.0))
    padding = int(PointLabel.BATCH_PADDING)
    assert rows.point_labels.tolist() == [[1, 0, -1], [2, 3, padding], [padding] * 3]
    assert rows.has_mask_input.tolist() == [0, 0, 1]
    assert rows.mask_input.max(axis=(1, 2)).tolist() == [0, 0, 2]


def test_normalized_coordinates_mean_the_same_points() -> None:
    pixels = batch(clicks((50, 25, 1)), box(20, 10, 200, 100))
    normalized = batch(clicks((0.25, 0.25, 1)), box(0.1, 0.1, 1, 1), space=CoordinateSpace.NORMALIZED)
    np.testing.assert_allclose(pixels.point_coords, normalized.point_coords)
