"""Relative positions folded into wider heads: the same attention, in a form that fused kernels take."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

from modeling.export import export_module
from modeling.folded_attention import FoldedAttention
from modeling.tensorrt_builder import TENSORRT_RTX, Shapes, compile_engine, load_builder

# With every relative position embedding different, and a width (5 · 8 + 2 · 7) that is no multiple of 8.
HIDDEN, HEADS, WINDOW, GRID = 120, 3, 7, 16


def attention(window: int) -> SamVisionSdpaAttention:
    config = SamVisionConfig(hidden_size=HIDDEN, num_attention_heads=HEADS, image_size=16 * GRID)
    made = SamVisionSdpaAttention(config, window)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return made


@pytest.mark.parametrize("one_width", [False, True])
@pytest.mark.parametrize("window", [0, WINDOW], ids=["whole grid", "window"])
def test_folding_changes_nothing(window: int, one_width: bool) -> None:
    original = attention(window).double()
    side = window or GRID
    cells = torch.randn(2, side, side, HIDDEN, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.inference_mode():
        expected, _ = original(cells)
        folded = FoldedAttention(original, side, one_width=one_width)(cells)
    assert expected.std() > 0.5
    # Float64's rounding, on values of some units.
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-13)


def test_leaving_out_the_positions_would_show() -> None:
    original = attention(WINDOW).double()
    cells = torch.randn(1, WINDOW, WINDOW, HIDDEN, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.inference_mode():
        expected, _ = original(cells)
        nn.init.zeros_(original.rel_pos_w)
        without = FoldedAttention(original, WINDOW, one_width=True)(cells)
    assert (without - expected).abs().max() > 0.01


@pytest.mark.timeout(300)
@pytest.mark.parametrize("one_width", [True, False])
def test_tensorrt_fuses_attention_of_one_width_only(one_width: bool, tmp_path: Path) -> None:
    trt = load_builder(TENSORRT_RTX)
    module = FoldedAttention(attention(WINDOW).half(), WINDOW, one_width=one_width)
    cells = torch.zeros(2, WINDOW, WINDOW, HIDDEN, dtype=torch.float16)
    dynamic = {"hidden_states": {0: Dim("batch", min=1, max=64)}}
    export_module(module, (cells,), dynamic, ("attended",), tmp_path / "attention.onnx")
    shapes = {"hidden_states": Shapes(*((batch, WINDOW, WINDOW, HIDDEN) for batch in (1, 2, 4)))}
    compile_engine(trt, tmp_path / "attention.onnx", tmp_path / "attention.engine", shapes, compute_capabilities=[80])
    fused = re.search(rb"_gemm_mha_v2", (tmp_path / "attention.engine").read_bytes())
    assert bool(fused) == one_width
