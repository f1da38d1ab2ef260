"""The streamed attention kernel, interpreted, against transformers' attention with SAM's own windows."""

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionLayer

from benchmarks.gpu.attention_kernels import interpreted, relative_positions, streamed_attention
from benchmarks.gpu.vit import position_terms, split_heads

pytestmark = pytest.mark.skipif(not interpreted(), reason="TRITON_INTERPRET is not 1")

HEADS = 2


class Case(NamedTuple):
    """An attention of `HEADS` heads on a grid of cells; window 0 is the whole grid."""

    head_width: int
    grid: int
    window: int
    batch: int

    @property
    def side(self) -> int:
        """Of the squares that attend to themselves."""
        return self.window or self.grid


# Rows of keys are padded to a power of two of at least 16; below 32, two are visited at a time.
CASES = [
    pytest.param(Case(80, 20, 14, 2), id="head 80, windows that have to be filled up, two images"),
    pytest.param(Case(64, 10, 7, 1), id="head 64, windows that have to be filled up, of odd side"),
    pytest.param(Case(80, 14, 7, 1), id="head 80, windows that tile the grid"),
    pytest.param(Case(80, 17, 0, 1), id="head 80, whole grid of odd side"),
    pytest.param(Case(64, 16, 0, 2), id="head 64, whole grid of a power of two, two images"),
    pytest.param(Case(80, 32, 0, 1), id="head 80, whole grid of a power of two, one row at a time"),
]
HALF_CASES = [
    pytest.param(Case(80, 20, 14, 1), id="head 80, windows that have to be filled up"),
    pytest.param(Case(64, 16, 0, 1), id="head 64, whole grid"),
]


def layer_of(case: Case) -> Any:
    """A layer whose weights are random and exact in half precision."""
    config = SamVisionConfig(
        hidden_size=HEADS * case.head_width, num_attention_heads=HEADS, image_size=16 * case.grid, mlp_dim=8
    )
    config._attn_implementation = "eager"
    layer = SamVisionLayer(config, case.window)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in layer.attn.named_parameters():
        scale = 0.2 if "rel_pos" in name else 0.1
        parameter.data = torch.randn(parameter.shape, generator=generator).mul(scale).half().float()
    return layer


def cells_of(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(case.batch, case.grid, case.grid, HEADS * case.head_width, generator=generator)


@torch.inference_mode()
def expected_of(layer: Any, cells: Tensor, window: int) -> Tensor:
    """What transformers computes, from the cells to what lies before the last projection."""
    layer.attn.proj = torch.nn.Identity()
    if not window:
        whole: Tensor = layer.attn(cells)[0]
        return whole
    windows, padded = layer.window_partition(cells, window)
    attended = layer.attn(windows)[0]
    joined: Tensor = layer.window_unpartition(attended, window, padded, cells.shape[1:3])
    return joined


@torch.inference_mode()
def streamed_of(layer: Any, cells: Tensor, side: int, dtype: torch.dtype, *, half_sums: bool) -> Tensor:
    attention = layer.attn
    qkv = attention.qkv(cells).to(dtype)
    parameters = (parameter.to(dtype) for parameter in (attention.qkv.bias, attention.rel_pos_h, attention.rel_pos_w))
    return streamed_attention(qkv, *parameters, HEADS, side, half_sums).float()


@pytest.mark.parametrize("case", CASES)
def test_in_single_precision_it_is_sams_attention(case: Case) -> None:
    layer, cells = layer_of(case), cells_of(case)
    answer = streamed_of(layer, cells, case.side, torch.float32, half_sums=False)
    expected = expected_of(layer, cells, case.window)
    assert expected.std() > 0.1
    torch.testing.assert_close(answer, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("half_sums", [False, True], ids=["float32 sums", "half sums"])
@pytest.mark.parametrize("case", HALF_CASES)
def test_in_half_precision_it_is_within_its_rounding(case: Case, half_sums: bool) -> None:
    layer, cells = layer_of(case), cells_of(case)
    answer = streamed_of(layer, cells, case.side, torch.float16, half_sums=half_sums)
    expected = expected_of(layer, cells, case.window)
    error = (answer - expected).abs().max() / expected.abs().max()
    assert error < (1e-2 if half_sums else 4e-3)


def test_leaving_out_the_positions_would_show() -> None:
    case = Case(80, 10, 7, 1)
    layer, cells = layer_of(case), cells_of(case)
    expected = expected_of(layer, cells, case.window)
    torch.nn.init.zeros_(layer.attn.rel_pos_w)
    without = streamed_of(layer, cells, case.side, torch.float32, half_sums=False)
    assert (without - expected).abs().max() > 0.01


def test_positions_are_products_with_the_embeddings_of_distances() -> None:
    case = Case(80, 12, 0, 2)
    layer, cells = layer_of(case), cells_of(case)
    with torch.inference_mode():
        qkv = layer.attn.qkv(cells)
        tables = (layer.attn.rel_pos_h, layer.attn.rel_pos_w)
        by_row, by_column = relative_positions(qkv, *tables, HEADS, case.side)
        expected = position_terms(split_heads(qkv, HEADS)[0], *tables)
    # The kernel's exponentials are powers of 2.
    for answer, wanted in zip((by_row.transpose(2, 3), by_column), expected, strict=True):
        torch.testing.assert_close(answer, wanted * math.log2(math.e), rtol=0, atol=2e-5)


def test_a_head_that_the_kernel_cannot_take_is_refused() -> None:
    qkv = torch.zeros(1, 4, 4, 3 * 72)
    table = torch.zeros(7, 72)
    with pytest.raises(ValueError, match="a head of 72"):
        streamed_attention(qkv, torch.zeros(3 * 72), table, table, 1, 4)
