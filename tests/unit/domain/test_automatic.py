"""The parts of the automatic mask generator are those of Meta's: grids, crops, edges of crops, small regions."""

from itertools import pairwise
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from modeling.meta_generator import meta_algorithms
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.errors import InvalidParameter
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.masks import Mask, PackedMask, upsample_mask
from samserve.domain.nms import BoxSuppression, box_ious, box_nms
from samserve.domain.point_grids import crop_layers, near_crop_edge, point_grid
from samserve.domain.regions import remove_small_regions

META: ModuleType = meta_algorithms()
SIZES = st.builds(Size, st.integers(1, 400), st.integers(1, 400))
WINDOWS = st_numpy.arrays(np.bool_, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=14))


@st.composite
def scored_boxes(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Boxes on a coarse grid, so that many overlap and some are equal, and scores with ties."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = generator.integers(0, 13, (draw(st.integers(0, 40)), 2, 2)).astype(np.float64)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return boxes, generator.integers(0, 6, len(boxes)).astype(np.float64)


@st.composite
def masks_in_images(draw: st.DrawFn) -> Mask:
    window = draw(WINDOWS.filter(np.any))
    top, left, below, beside = (draw(st.integers(0, 6)) for _ in range(4))
    size = Size(top + window.shape[0] + below, left + window.shape[1] + beside)
    return Mask(size, np.asfortranarray(window), top, left, 0.9, 0.95, np.zeros((1, 1), dtype=np.float32))


@settings(deadline=None)
@given(scored_boxes(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_kept_boxes_do_not_overlap_and_dropped_ones_overlap_a_better_one(
    scored: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], threshold: float
) -> None:
    boxes, scores = scored
    kept = box_nms(boxes, scores, threshold)
    assert all(scores[first] >= scores[second] for first, second in pairwise(kept))
    for index, box in enumerate(boxes):
        ious = box_ious(box, boxes)
        better = [other for other in kept if other != index and (-scores[other], other) < (-scores[index], index)]
        assert (index in kept) == (not any(ious[other] > threshold for other in better))


def test_suppression_remembers_more_boxes_than_it_has_room_for() -> None:
    suppression = BoxSuppression(0.5)
    boxes = [np.array([10.0 * n, 0.0, 10.0 * n + 9, 9.0]) for n in range(1000)]
    assert all(suppression.keeps(box) for box in boxes)
    assert not any(suppression.keeps(box) for box in boxes)


@pytest.mark.parametrize("points_per_side", [1, 2, 7, 32])
def test_grid_is_sams(points_per_side: int) -> None:
    np.testing.assert_allclose(point_grid(points_per_side), META.build_point_grid(points_per_side), rtol=1e-12)


@settings(deadline=None)
@given(SIZES, st.integers(0, 3), st.floats(0, 1))
def test_crops_are_sams_from_the_smallest_to_the_whole(size: Size, n_layers: int, overlap_ratio: float) -> None:
    crops = crop_layers(size, n_layers, overlap_ratio)
    boxes, layers = META.generate_crop_boxes(tuple(size), n_layers, overlap_ratio)
    # Where the image has fewer pixels than crops, SAM's reach outside of it.
    expected = [
        (tuple(box), layer) for box, layer in zip(boxes, layers, strict=True) if box[0] < box[2] and box[1] < box[3]
    ]
    assert sorted((tuple(crop.box), crop.layer) for crop in crops) == sorted(expected)
    areas = [crop.box.size.height * crop.box.size.width for crop in crops]
    assert areas == sorted(areas)
    assert (CropBox.whole(size), 0) in [(crop.box, crop.layer) for crop in crops]


@settings(deadline=None)
@given(st.data())
def test_masks_at_the_edge_of_a_crop_are_recognised_as_sam_does(data: st.DataObject) -> None:
    size = Size(200, 300)
    crop = data.draw(st.sampled_from(crop_layers(size, 2, 512 / 1500)))
    x = sorted(data.draw(st.lists(st.integers(crop.box.x0, crop.box.x1 - 1), min_size=2, max_size=2)))
    y = sorted(data.draw(st.lists(st.integers(crop.box.y0, crop.box.y1 - 1), min_size=2, max_size=2)))
    in_crop = torch.tensor([[x[0], y[0], x[1], y[1]]]) - torch.tensor([crop.box.x0, crop.box.y0] * 2)
    expected = META.is_box_near_crop_edge(in_crop, list(crop.box), [0, 0, size.width, size.height])
    box = np.array([x[0], y[0], x[1], y[1]], dtype=np.float64)
    assert near_crop_edge(box, crop.box, size, 20.0) == bool(expected)


@settings(deadline=None)
@given(masks_in_images(), st.integers(1, 60))
def test_small_regions_are_removed_as_sam_does(mask: Mask, min_area: int) -> None:
    expected, holes = META.remove_small_regions(mask.full(), min_area, mode="holes")
    expected, islands = META.remove_small_regions(expected, min_area, mode="islands")
    cleaned = remove_small_regions(mask, min_area)
    np.testing.assert_array_equal(cleaned.full(), expected)
    assert (cleaned is mask) == (not holes and not islands)


@settings(deadline=None)
@given(masks_in_images())
def test_packed_masks_are_whole_again(mask: Mask) -> None:
    unpacked = PackedMask.pack(mask).unpack()
    np.testing.assert_array_equal(unpacked.full(), mask.full())
    assert (unpacked.bbox, unpacked.area) == (mask.bbox, mask.area)
    assert (unpacked.iou_prediction, unpacked.stability_score) == (0.9, 0.95)


@pytest.mark.parametrize("offset", [0.0, 0.3, 2.0])
def test_stability_is_sams_at_any_offset(offset: float) -> None:
    low_res = np.random.default_rng(1).normal(0, 2, (16, 16)).astype(np.float32)
    frame = ImageFrame(Size(40, 64), 64)
    logits = torch.nn.functional.interpolate(torch.from_numpy(low_res)[None, None], (64, 64), mode="bilinear")
    expected = META.calculate_stability_score(logits[..., :40, :], 0.0, offset)
    assert upsample_mask(low_res, 0.9, frame, offset).stability_score == pytest.approx(float(expected), abs=1e-3)


def test_defaults_are_sams_and_pass() -> None:
    parameters = AutomaticMaskParameters()
    parameters.check()
    assert (parameters.points_per_side, parameters.pred_iou_thresh, parameters.stability_score_thresh) == (
        32,
        0.88,
        0.95,
    )


@pytest.mark.parametrize(
    ("parameters", "field", "text"),
    [
        (AutomaticMaskParameters(points_per_side=65), "points_per_side", "between 1 and 64"),
        (AutomaticMaskParameters(pred_iou_thresh=float("nan")), "pred_iou_thresh", "got nan"),
        (AutomaticMaskParameters(points_per_side=64, crop_n_layers=3), "crop_n_layers", "limit is 32768"),
        (
            AutomaticMaskParameters(points_per_side=3, crop_n_layers=1, crop_n_points_downscale_factor=4),
            "crop_n_points_downscale_factor",
            "no point in crop layer 1",
        ),
    ],
)
def test_refusal_says_what_to_change(parameters: AutomaticMaskParameters, field: str, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text) as refused:
        parameters.check()
    assert refused.value.field == field
