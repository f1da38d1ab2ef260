"""TinyViT on grids that its windows fill and on those that they do not."""

import pytest
import torch
from torch import Tensor
from transformers import SamModel

from modeling.tiny_vit import EMBEDDING_CHANNELS, TinyViT, WindowAttention, WindowBlock


@pytest.fixture(scope="module")
def encoder(small_model: SamModel) -> TinyViT:
    assert isinstance(small_model.vision_encoder, TinyViT)
    return small_model.vision_encoder


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("side", [64, 112, 224, 240])
def test_embeddings_have_256_channels_at_stride_16(encoder: TinyViT, side: int) -> None:
    with torch.inference_mode():
        assert encoder(noise(2, 3, side, side)).shape == (2, EMBEDDING_CHANNELS, side // 16, side // 16)


def attend_within(attention: WindowAttention, tokens: Tensor) -> Tensor:
    """One window's tokens `[window², C]`, a head at a time."""
    window, heads = attention.window, attention.heads
    count, channels = tokens.shape
    width = channels // heads
    row, column = torch.arange(count) // window, torch.arange(count) % window
    distances = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
    qkv = attention.qkv(attention.norm(tokens))
    attended = []
    for head in range(heads):
        query, key, value = qkv[:, head * 3 * width : (head + 1) * 3 * width].split(width, dim=1)
        logits = query @ key.T / width**0.5 + attention.attention_biases[head][distances]
        attended.append(torch.softmax(logits, dim=1) @ value)
    projected: Tensor = attention.proj(torch.cat(attended, dim=1))
    return projected


def attend_in_windows(block: WindowBlock, features: Tensor) -> Tensor:
    """Attention within each window, those at the lower and right edge filled up with zeros: `[C, H, W]` -> the same."""
    channels, height, width = features.shape
    side = block.window
    attended = torch.empty_like(features)
    for top in range(0, height, side):
        for left in range(0, width, side):
            part = features[:, top : top + side, left : left + side]
            window = torch.zeros(channels, side, side)
            window[:, : part.shape[1], : part.shape[2]] = part
            result = attend_within(block.attn, window.flatten(1).T).T.reshape(channels, side, side)
            attended[:, top : top + side, left : left + side] = result[:, : part.shape[1], : part.shape[2]]
    return attended


@pytest.mark.parametrize(
    ("stage", "height", "width"),
    [
        pytest.param(1, 16, 16, id="stride 8 of 128 pixels, windows of 7"),
        pytest.param(2, 8, 8, id="stride 16 of 128 pixels, windows of 14"),
        pytest.param(2, 16, 16, id="stride 16 of 256 pixels, windows of 14"),
        pytest.param(3, 16, 16, id="stride 16 of 256 pixels, windows of 7"),
        pytest.param(3, 14, 14, id="windows that fill the grid"),
        pytest.param(3, 7, 9, id="no square"),
    ],
)
def test_a_block_attends_within_windows_and_pads_the_last(
    encoder: TinyViT, stage: int, height: int, width: int
) -> None:
    block = encoder.layers[stage].get_submodule("blocks.0")
    assert isinstance(block, WindowBlock)
    features = noise(2, block.mlp.fc1.in_features, height, width)
    with torch.inference_mode():
        attended = torch.stack([attend_in_windows(block, image) for image in features])
        # The block's other halves do not know of windows.
        mixed = block.local_conv(features + attended)
        expected = mixed + block.mlp(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(block(features), expected, atol=1e-4, rtol=1e-4)
