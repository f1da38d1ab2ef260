import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.masks import Mask, run_lengths, upsample_mask

IMAGE_SIZE, LOW_RES_SIZE = 64, 16
Logits = npt.NDArray[np.float32]


def sam_postprocess(low_res_mask: Logits, frame: ImageFrame) -> Logits:
    """`Sam.postprocess_masks` of segment-anything, written from its description: logits `[H, W]`."""
    square = F.interpolate(
        torch.from_numpy(low_res_mask)[None, None], (frame.image_size,) * 2, mode="bilinear", align_corners=False
    )
    cropped = square[..., : frame.input_size.height, : frame.input_size.width]
    original: torch.Tensor = F.interpolate(cropped, tuple(frame.original_size), mode="bilinear")
    return np.asarray(original[0, 0].numpy(), dtype=np.float32)


@st.composite
def frames(draw: st.DrawFn) -> ImageFrame:
    return ImageFrame(Size(draw(st.integers(1, 150)), draw(st.integers(1, 150))), IMAGE_SIZE)


@st.composite
def logits(draw: st.DrawFn) -> Logits:
    """From smooth blobs to noise, and everything between nothing and everything."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.normal(size=(LOW_RES_SIZE, LOW_RES_SIZE))
    ys, xs = np.mgrid[:LOW_RES_SIZE, :LOW_RES_SIZE]
    blob = draw(st.floats(0, 20)) - np.hypot(ys - rng.uniform(0, 16), xs - rng.uniform(0, 16))
    return np.asarray(draw(st.floats(0, 3)) * noise + blob + draw(st.floats(-5, 5)), dtype=np.float32)


@given(logits(), frames())
def test_mask_equals_sams_own_postprocessing(low_res_mask: Logits, frame: ImageFrame) -> None:
    expected = sam_postprocess(low_res_mask, frame)
    mask = upsample_mask(low_res_mask, 0.5, frame)
    certain = np.abs(expected) > 1e-4
    np.testing.assert_array_equal(mask.full()[certain], (expected > 0)[certain])


@given(logits(), frames())
def test_stability_score_equals_sams(low_res_mask: Logits, frame: ImageFrame) -> None:
    expected = sam_postprocess(low_res_mask, frame)
    inner, outer = int((expected > 1).sum()), int((expected > -1).sum())
    uncertain = int((np.abs(np.abs(expected) - 1) < 1e-4).sum())
    score = upsample_mask(low_res_mask, 0.5, frame).stability_score
    assert score == pytest.approx(inner / outer if outer else 0.0, abs=(uncertain + 1e-9) / max(outer, 1))


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
