"""A ViT whose activations are as uneven as a trained one's: the gate lets it through with islands, and not without.

SAM's ViT-H failed so in the field (segment-anything#540): the squares in its neck's hand-written layer norm overflow
half precision. The weights here are random, with outliers that lead to the same.
"""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
import torch
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from benchmarks.half_precision import ISLANDS, NECK_BY_HAND, study, table, with_hand_written_norms
from modeling.decoder_graph import MaskDecoderGraph
from modeling.export import export_encoder
from modeling.parity import ParityFailed, ParityFigures, check_parity
from modeling.precision import FP16, FP32, Precision
from modeling.random_weights import grow_outliers, randomise
from modeling.reference import ReferenceSam
from modeling.runtimes import graph_runner, onnx_runtime
from modeling.thresholds import THRESHOLDS
from modeling.tiny import MASK_DECODER_NORM_EPS

pytestmark = pytest.mark.timeout(900)

IMAGE_SIZE = 256


@pytest.fixture(scope="module")
def uneven_vit() -> SamModel:
    """SAM's architecture, four layers thin: windows that do not divide the grid, and layers that see all of it."""
    vision = SamVisionConfig(
        image_size=IMAGE_SIZE,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        window_size=7,
        global_attn_indexes=[1, 3],
    )
    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config=SamPromptEncoderConfig(image_size=IMAGE_SIZE),
        mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=MASK_DECODER_NORM_EPS),
    )
    model = SamModel(config)
    model.train(False)
    randomise(model, seed=1)
    grow_outliers(model.vision_encoder)
    return model


def gate(graph: Path, model: SamModel, precision: Precision) -> ParityFigures:
    decoder = MaskDecoderGraph(model)

    def decode(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [output.numpy() for output in decoder(*(torch.from_numpy(array) for array in arrays))]

    reference, encoder = ReferenceSam(model), graph_runner(graph, precision)
    return check_parity(reference, encoder, decode, images=2, thresholds=THRESHOLDS[precision])


def test_with_islands_the_uneven_vit_passes(uneven_vit: SamModel, tmp_path: Path) -> None:
    export_encoder(uneven_vit, tmp_path / "islands.onnx", precision=FP16)
    figures = gate(tmp_path / "islands.onnx", uneven_vit, FP16)
    assert figures.embedding_cosine > 0.99999


def test_a_neck_in_half_precision_is_caught(uneven_vit: SamModel, tmp_path: Path) -> None:
    without = with_hand_written_norms(uneven_vit, everywhere=False)
    export_encoder(without, tmp_path / "half.onnx", precision=FP16)
    with pytest.raises(ParityFailed, match="embedding_cosine is"):
        gate(tmp_path / "half.onnx", uneven_vit, FP16)

    # ONNX Runtime alone would have let it through: it computes such a graph in single precision.
    probe = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8).numpy()
    size = torch.tensor([[IMAGE_SIZE, IMAGE_SIZE]], dtype=torch.int32).numpy()
    [unrounded] = onnx_runtime(tmp_path / "half.onnx")(probe, size)
    [expected] = onnx_runtime(exported(uneven_vit, tmp_path))(probe, size)
    torch.testing.assert_close(torch.from_numpy(unrounded), torch.from_numpy(expected), atol=0.05, rtol=0)


def exported(model: SamModel, folder: Path) -> Path:
    path = folder / "single.onnx"
    export_encoder(model, path, precision=FP32)
    return path


def test_the_study_shows_where_it_overflows(uneven_vit: SamModel) -> None:
    places = {place.name: place for place in study(uneven_vit)}
    # Its square is more than half precision holds, and it itself is not.
    assert 256 < places["neck conv1"].largest < 65504
    assert places["neck conv1"].errors[NECK_BY_HAND] < 0.01
    assert not places["neck layer_norm1"].errors[NECK_BY_HAND] < 0.5
    assert all(place.errors[ISLANDS] < 0.01 for place in places.values())
    assert table(list(places.values())).startswith("| after | largest value |")
