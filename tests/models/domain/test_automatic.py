"""The parts of the automatic mask generator are those of Meta's: grids, crops, edges of crops, small regions."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.meta_generator import meta_algorithms
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.masks import Mask, upsample_mask
from samserve.domain.point_grids import crop_layers, near_crop_edge, point_grid
from samserve.domain.regions import remove_small_regions
from tests.support.mask_strategies import masks_in_images

META: ModuleType = meta_algorithms()
SIZES = st.builds(Size, st.integers(1, 400), st.integers(1, 400))


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


@pytest.mark.parametrize("offset", [0.0, 0.3, 2.0])
def test_stability_is_sams_at_any_offset(offset: float) -> None:
    low_res = np.random.default_rng(1).normal(0, 2, (16, 16)).astype(np.float32)
    frame = ImageFrame(Size(40, 64), 64)
    logits = torch.nn.functional.interpolate(torch.from_numpy(low_res)[None, None], (64, 64), mode="bilinear")
    expected = META.calculate_stability_score(logits[..., :40, :], 0.0, offset)
    assert upsample_mask(low_res, 0.9, frame, offset).stability_score == pytest.approx(float(expected), abs=1e-3)
