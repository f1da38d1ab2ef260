"""Composited scenes: exact, nested masks, the same for the same seed."""

import numpy as np
import pytest

from training.regions import region_hierarchy
from training.samples import MaskedImage
from training.scenes import compose


def _disjoint_or_nested(masks: np.ndarray) -> bool:
    for one in masks:
        for other in masks:
            both = (one & other).sum()
            if both not in (0, one.sum(), other.sum()):
                return False
    return True


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_disjoint_or_nested_and_not_empty(seed: int) -> None:
    scene = compose((96, 128), [], [], np.random.default_rng(seed))
    assert scene.image.shape == (96, 128, 3)
    assert scene.masks.shape[1:] == (96, 128)
    assert scene.masks.any(axis=(1, 2)).all()
    assert _disjoint_or_nested(scene.masks)


def test_same_seed_gives_same_scene() -> None:
    first = compose((64, 80), [], [], np.random.default_rng(3))
    second = compose((64, 80), [], [], np.random.default_rng(3))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.masks, second.masks)


def test_another_seed_gives_another_scene() -> None:
    first = compose((64, 80), [], [], np.random.default_rng(3))
    second = compose((64, 80), [], [], np.random.default_rng(4))
    assert not np.array_equal(first.image, second.image)


def test_cutout_becomes_a_mask_of_its_opaque_pixels() -> None:
    cutout = np.zeros((40, 40, 4), dtype=np.uint8)
    cutout[5:35, 5:35] = (250, 10, 10, 255)
    found = False
    for seed in range(5):
        scene = compose((96, 96), [], [cutout], np.random.default_rng(seed))
        for mask in scene.masks:
            red = scene.image[mask].astype(int)
            found |= bool(np.median(red[:, 0]) > 3 * np.median(red[:, 1:]) and mask.mean() < 0.5)
    assert found


def test_stored_sample_comes_back_with_its_masks(tmp_path: object) -> None:
    scene = compose((64, 80), [], [], np.random.default_rng(5))
    path = tmp_path / "scene.npz"  # type: ignore[operator]
    MaskedImage.of_masks(scene.image, scene.masks).save(path)
    loaded = MaskedImage.load(path)
    assert np.array_equal(np.stack([loaded.mask(i) for i in range(len(scene.masks))]), scene.masks)
    assert np.abs(loaded.image.astype(int) - scene.image).mean() < 12


def test_region_hierarchy_finds_the_halves_of_a_picture() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 30, (96, 128, 3)).astype(np.uint8)
    image[:, 64:] += 150
    image[30:60, 80:110, 0] = 20
    sample = region_hierarchy(image)
    assert sample is not None
    masks = np.stack([sample.mask(i) for i in range(len(sample.weights))])
    assert _disjoint_or_nested(masks)
    right = np.zeros((96, 128), dtype=bool)
    right[:, 64:] = True
    best = max((mask & right).sum() / (mask | right).sum() for mask in masks)
    assert best > 0.9
