"""The GPU benchmark's parts, on the CPU with the small model: that they run, and that they count right."""

from collections.abc import Iterator

import pytest
import torch
from transformers import SamModel

from benchmarks.gpu import decoder_flops, encoder_flops, main, matmul_rate, parity_of, race, table, torch_contestants
from modeling.precision import FP16, FP32
from modeling.random_weights import random_model

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def model() -> Iterator[SamModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield random_model("tiny", seed=2)
    torch.set_num_threads(threads)


def test_every_contestant_runs_every_task(model: SamModel) -> None:
    contestants = torch_contestants(model, "cpu", FP32, compiled=False)
    rows = race(contestants, model, "cpu", [1, 2], {"encoder": 1e4, "decoder": 1e4}, rounds=1)
    assert {row.contestant for row in rows} == {"eager", "folded"}
    assert len(rows) == 2 * 3 * 2
    assert all(row.rate > 0 and row.of_ceiling == row.rate / 1e4 for row in rows)
    assert table(rows).count("\n") == len(rows) + 1


def test_contestants_are_compared_with_single_precision(model: SamModel) -> None:
    [_, folded] = torch_contestants(model, "cpu", FP16, compiled=False)
    assert folded.name == "folded"
    assert "cosine 0.99999" in parity_of(folded, model, "cpu")


def test_flops_are_those_of_sam() -> None:
    # 5.96 TFLOP an image and some 3.6 GFLOP a prompt for ViT-H, multiplication and addition counted as two.
    assert encoder_flops("vit_h") == pytest.approx(5.96e12, rel=0.01)
    assert decoder_flops("vit_h") == pytest.approx(3.6e9, rel=0.1)


def test_the_ceiling_is_a_rate() -> None:
    assert matmul_rate("cpu", torch.float32, side=64) > 1e6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--random-weights", "0"]) == 2
    assert "no GPU" in capsys.readouterr().err
