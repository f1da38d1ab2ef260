"""The kit's models, and the work that is counted for them."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamModel

from benchmarks.gpu.encoder import encoder_flop
from benchmarks.gpu.models import kit_config, kit_model, shapes_of


def test_an_image_of_vit_h_takes_sams_operations() -> None:
    # 5.96 TFLOP, multiplication and addition counted as two.
    assert encoder_flop(shapes_of("vit_h")) == pytest.approx(5.96e12, rel=1e-3)


@pytest.mark.parametrize("name", ["tiny", "vit_b", "vit_h"])
def test_the_counted_work_is_that_of_pytorchs_counter(name: str) -> None:
    config: Any = kit_config(name)
    config._attn_implementation = "eager"
    config.vision_config._attn_implementation = "eager"
    with torch.device("meta"):
        model = SamModel(config)
        side = config.vision_config.image_size
        pixels = torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.vision_encoder(pixels)
    assert encoder_flop(shapes_of(name)) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_windows_of_vit_h_fill_up_to_4900_cells() -> None:
    shapes = shapes_of("vit_h")
    assert (shapes.tokens, shapes.padded_tokens, shapes.head_width) == (4096, 4900, 80)


def test_the_small_model_has_what_makes_vit_h_hard() -> None:
    shapes = shapes_of("tiny")
    assert shapes.head_width == shapes_of("vit_h").head_width
    assert shapes.grid % shapes.window, "windows have to be filled up"
    assert 0 < len(shapes.global_layers) < shapes.layers


def test_random_weights_follow_their_seed() -> None:
    def attention(seed: int) -> Any:
        encoder: Any = kit_model("tiny", seed, "cpu").vision_encoder
        return encoder.layers[0].attn

    first, again, other = attention(1), attention(1), attention(2)
    torch.testing.assert_close(first.qkv.weight, again.qkv.weight, rtol=0, atol=0)
    assert (first.qkv.weight - other.qkv.weight).abs().max() > 0.01
    assert first.rel_pos_h.std() > 0.05
