import numpy as np
from hypothesis import given
from pycocotools import mask as coco

from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.masks import Mask, run_lengths, upsample_mask
from tests.support.mask_strategies import IMAGE_SIZE, Logits, frames, logits


@given(logits(), frames())
def test_area_and_bbox_are_those_of_the_full_mask(low_res_mask: Logits, frame: ImageFrame) -> None:
    mask = upsample_mask(low_res_mask, 0.5, frame)
    full = mask.full()
    assert full.shape == frame.original_size
    assert mask.area == full.sum()
    if mask.area:
        ys, xs = np.nonzero(full)
        assert mask.bbox == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    else:
        assert mask.bbox == (0, 0, 0, 0)


@given(logits(), frames())
def test_run_lengths_are_cocos(low_res_mask: Logits, frame: ImageFrame) -> None:
    mask = upsample_mask(low_res_mask, 0.5, frame)
    height, width = frame.original_size
    expected = coco.encode(np.asfortranarray(mask.full().astype(np.uint8)))
    encoded = coco.frPyObjects({"size": [height, width], "counts": run_lengths(mask)}, height, width)  # type: ignore[call-overload]
    assert encoded == expected


def test_runs_join_where_one_column_ends_and_the_next_begins() -> None:
    full = Mask(Size(3, 2), np.ones((3, 2), dtype=np.bool_), 0, 0, 1.0, 1.0, np.zeros((4, 4), np.float32))
    assert run_lengths(full).tolist() == [0, 6]


def test_work_follows_the_object_not_the_photo() -> None:
    low_res_mask = np.full((256, 256), -20, dtype=np.float32)
    low_res_mask[100:110, 50:60] = 20
    mask = upsample_mask(low_res_mask, 0.5, ImageFrame(Size(3000, 4000), 1024))
    assert mask.area > 10_000
    assert mask.window.size < 4 * mask.area


def test_logits_in_the_padding_alone_give_an_empty_mask() -> None:
    low_res_mask = np.full((16, 16), -20, dtype=np.float32)
    low_res_mask[12:] = 20
    mask = upsample_mask(low_res_mask, 0.5, ImageFrame(Size(20, 64), IMAGE_SIZE))
    assert (mask.area, mask.stability_score, run_lengths(mask).tolist()) == (0, 0.0, [20 * 64])
