"""Box suppression, packed masks and parameters of the automatic mask generator."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.errors import InvalidParameter
from samserve.domain.masks import Mask, PackedMask
from samserve.domain.nms import BoxSuppression, box_ious, box_nms
from tests.support.mask_strategies import masks_in_images


@st.composite
def scored_boxes(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Boxes on a coarse grid, so that many overlap and some are equal, and scores with ties."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = generator.integers(0, 13, (draw(st.integers(0, 40)), 2, 2)).astype(np.float64)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return boxes, generator.integers(0, 6, len(boxes)).astype(np.float64)


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


@settings(deadline=None)
@given(masks_in_images())
def test_packed_masks_are_whole_again(mask: Mask) -> None:
    unpacked = PackedMask.pack(mask).unpack()
    np.testing.assert_array_equal(unpacked.full(), mask.full())
    assert (unpacked.bbox, unpacked.area) == (mask.bbox, mask.area)
    assert (unpacked.iou_prediction, unpacked.stability_score) == (0.9, 0.95)


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
def test_refusals_name_the_parameter_to_change(parameters: AutomaticMaskParameters, field: str, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text) as refused:
        parameters.check()
    assert refused.value.field == field
