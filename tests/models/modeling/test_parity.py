"""The gate accepts correct graphs and names the fault of others."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from transformers import SamModel

from modeling.decoder_graph import MaskDecoderGraph
from modeling.encoder_graph import ImageEncoderGraph
from modeling.parity import ParityFailed, check_parity
from modeling.prompts import ABSENT, NOT_A_POINT
from modeling.reference import ReferenceSam
from modeling.runtimes import GraphRunner

Arrays = list[npt.NDArray[Any]]


def running(module: nn.Module) -> GraphRunner:
    """A graph before its export, in the form of an exported one."""

    def run(*arrays: npt.NDArray[Any]) -> Arrays:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(array) for array in arrays))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


@pytest.fixture
def encoder(small_model: SamModel) -> GraphRunner:
    return running(ImageEncoderGraph(small_model))


@pytest.fixture
def decoder(small_model: SamModel) -> GraphRunner:
    return running(MaskDecoderGraph(small_model))


def changed(runner: GraphRunner, change: Callable[[Arrays], Arrays]) -> GraphRunner:
    """The same graph, its inputs tampered with."""
    return lambda *arrays: runner(*change(list(arrays)))


def test_the_right_graphs_pass(small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner) -> None:
    figures = check_parity(small_reference, encoder, decoder)
    assert figures.logit_error < 1e-4
    assert figures.mask_iou_median > 0.999
    assert figures.embedding_separation > 0.1


def test_swapped_normalisation_is_caught(
    small_model: SamModel, small_reference: ReferenceSam, decoder: GraphRunner
) -> None:
    graph = ImageEncoderGraph(small_model)
    graph.pixel_mean, graph.pixel_std = graph.pixel_mean.flip(0), graph.pixel_std.flip(0)
    with pytest.raises(ParityFailed, match=r"embedding_cosine is 0\.\d+, below"):
        check_parity(small_reference, running(graph), decoder, images=2)


def test_an_encoder_that_answers_alike_to_every_image_is_caught(
    small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner
) -> None:
    def constant(*arrays: npt.NDArray[Any]) -> Arrays:
        return encoder(np.zeros_like(arrays[0]), arrays[1] * 0)

    with pytest.raises(ParityFailed, match="embedding_separation is 0, below"):
        check_parity(small_reference, constant, decoder, images=2)


def test_an_encoder_that_reads_the_padding_is_caught(
    small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner
) -> None:
    careless = changed(encoder, lambda arrays: [arrays[0], np.full_like(arrays[1], 10_000)])
    with pytest.raises(ParityFailed, match="embedding_cosine"):
        check_parity(small_reference, careless, decoder, images=2)


def test_padding_that_takes_part_in_attention_is_caught(
    small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner
) -> None:
    def as_points(arrays: Arrays) -> Arrays:
        arrays[2] = np.where(arrays[2] == ABSENT, NOT_A_POINT, arrays[2])
        return arrays

    with pytest.raises(ParityFailed, match="padding_error"):
        check_parity(small_reference, encoder, changed(decoder, as_points), images=2)


def test_a_decoder_that_ignores_mask_input_is_caught(
    small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner
) -> None:
    without = changed(decoder, lambda arrays: [*arrays[:4], np.zeros_like(arrays[4])])
    with pytest.raises(ParityFailed, match="logit_error"):
        check_parity(small_reference, encoder, without, images=2)


@pytest.mark.parametrize("output", ["embeddings", "masks", "scores"])
def test_what_is_not_a_number_is_caught(
    small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner, output: str
) -> None:
    def spoilt(runner: GraphRunner, index: int) -> GraphRunner:
        def run(*arrays: npt.NDArray[Any]) -> Arrays:
            outputs = [array.copy() for array in runner(*arrays)]
            outputs[index].flat[0] = np.nan
            return outputs

        return run

    if output == "embeddings":
        encoder = spoilt(encoder, 0)
    else:
        decoder = spoilt(decoder, ["masks", "scores"].index(output))
    with pytest.raises(ParityFailed, match="nan"):
        check_parity(small_reference, encoder, decoder, images=2)


def test_one_image_cannot_show_that_images_are_told_apart(
    small_reference: ReferenceSam, encoder: GraphRunner, decoder: GraphRunner
) -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        check_parity(small_reference, encoder, decoder, images=1)
