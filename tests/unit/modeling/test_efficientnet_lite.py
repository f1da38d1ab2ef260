"""The pretrained trunk sees what it was trained to see."""

import numpy as np
import pytest
import skimage
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.efficientnet_lite import TRUNK_CHANNELS, EfficientNetLite0, load_pretrained, pretrained_weights
from modeling.pixels import PIXEL_MEAN, PIXEL_STD

ESPRESSO, EGYPTIAN_CAT = 967, 285


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite0:
    trunk = EfficientNetLite0()
    load_pretrained(trunk, pretrained_weights())
    return trunk.eval()


def normed(x: Tensor, stored: dict[str, Tensor], norm: str) -> Tensor:
    mean, variance, weight, bias = (
        stored[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, weight, bias, eps=1e-3)


@pytest.mark.parametrize(("picture", "label"), [("coffee", ESPRESSO), ("chelsea", EGYPTIAN_CAT)])
def test_the_pretrained_trunk_under_its_own_head_names_things(
    trunk: EfficientNetLite0, picture: str, label: int
) -> None:
    image = getattr(skimage.data, picture)()
    side = min(image.shape[:2])
    top, left = ((extent - side) // 2 for extent in image.shape[:2])
    square = skimage.transform.resize(image[top : top + side, left : left + side], (224, 224), anti_aliasing=True) * 255
    pixels = torch.from_numpy((square - PIXEL_MEAN) / PIXEL_STD).float().permute(2, 0, 1).unsqueeze(0)
    head = torch.load(pretrained_weights(), weights_only=True)
    with torch.inference_mode():
        features = F.conv2d(trunk(pixels)[-1], head["_conv_head.weight"])
        pooled = F.relu6(normed(features, head, "_bn1")).mean(dim=(2, 3))
        scores = pooled @ head["_fc.weight"].T + head["_fc.bias"]
    assert int(scores.argmax()) == label


def test_features_come_at_four_strides(trunk: EfficientNetLite0) -> None:
    with torch.inference_mode():
        features = trunk(torch.zeros(1, 3, 64, 96))
    expected = [(1, channels, 64 // stride, 96 // stride) for stride, channels in TRUNK_CHANNELS.items()]
    assert [tuple(feature.shape) for feature in features] == expected


def test_pixels_normalised_as_sam_does_come_to_what_the_trunk_was_trained_with() -> None:
    adapted, original = EfficientNetLite0(), torch.load(pretrained_weights(), weights_only=True)
    load_pretrained(adapted, pretrained_weights())
    pixels = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 32, 32))).float()
    sams = (pixels - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)
    with torch.inference_mode():
        stem = F.conv2d((pixels - 127) / 128, original["_conv_stem.weight"], stride=2, padding=1)
        expected = normed(stem, original, "_bn0")
        found = adapted.eval().stem(sams)
    # At the border SAM's zero is the mean colour, and theirs is grey.
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-3, rtol=1e-3)
