"""The decoder with absorbed projections: the same function as the exported one."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SamModel

from modeling.absorbed_decoder import AbsorbedDecoderGraph
from modeling.decoder_graph import MaskDecoderGraph
from modeling.probes import probe_prompts
from modeling.prompts import ABSENT, FloatArray, Prompt, PromptTensors, prompt_tensors

IMAGE_SIZE, LOW_RES, GRID = 128, 32, 8
RELATIVE_ERROR = 1e-5
"""Of float32 sums in another order, as a part of the largest value."""
PROMPTS = probe_prompts((IMAGE_SIZE, 100), LOW_RES)

Graphs = tuple[MaskDecoderGraph, AbsorbedDecoderGraph]
coordinate = st.floats(-20, IMAGE_SIZE + 20, width=32)
point = st.tuples(coordinate, coordinate)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """Points, a box, a mask, or some of them."""
    places = draw(st.lists(point, max_size=4))
    labels = draw(st.lists(st.sampled_from([0, 1]), min_size=len(places), max_size=len(places)))
    box = draw(st.none() | st.tuples(coordinate, coordinate, coordinate, coordinate))
    mask = PROMPTS[-1].mask if draw(st.booleans()) or not (places or box) else None
    return Prompt(points=tuple(places), labels=tuple(labels), box=box, mask=mask)


@pytest.fixture(scope="module")
def graphs(small_model: SamModel) -> Graphs:
    return MaskDecoderGraph(small_model), AbsorbedDecoderGraph(small_model)


def embeddings(count: int) -> torch.Tensor:
    return torch.randn(count, 256, GRID, GRID, generator=torch.Generator().manual_seed(3)).half()


def decode(graph: MaskDecoderGraph, images: int, tensors: PromptTensors) -> tuple[FloatArray, FloatArray]:
    with torch.inference_mode():
        masks, scores = graph(embeddings(images), *(torch.from_numpy(array) for array in tensors))
    return masks.numpy(), scores.numpy()


def assert_same(answer: Sequence[FloatArray], expected: Sequence[FloatArray]) -> None:
    for got, wanted in zip(answer, expected, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=RELATIVE_ERROR * np.abs(wanted).max())


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_every_kind_of_prompt_gets_the_same_masks(graphs: Graphs, index: int) -> None:
    tensors = prompt_tensors([[PROMPTS[index]]], LOW_RES)
    exported, absorbed = (decode(graph, 1, tensors) for graph in graphs)
    assert np.abs(exported[0]).max() > 1
    assert_same(absorbed, exported)


def test_several_prompts_on_each_of_two_images(graphs: Graphs) -> None:
    tensors = prompt_tensors([PROMPTS, PROMPTS[::-1]], LOW_RES)
    exported, absorbed = (decode(graph, 2, tensors) for graph in graphs)
    assert absorbed[0].shape == (2, len(PROMPTS), 4, LOW_RES, LOW_RES)
    assert_same(absorbed, exported)


def two_rows(count: int) -> st.SearchStrategy[list[list[Prompt]]]:
    """So many prompts on each of two images."""
    return st.lists(st.lists(prompts(), min_size=count, max_size=count), min_size=2, max_size=2)


@given(st.integers(1, 3).flatmap(two_rows))
@settings(max_examples=25, deadline=None)
def test_any_prompts_on_two_images(graphs: Graphs, rows: list[list[Prompt]]) -> None:
    tensors = prompt_tensors(rows, LOW_RES)
    exported, absorbed = (decode(graph, 2, tensors) for graph in graphs)
    assert_same(absorbed, exported)


@given(absent=st.integers(1, 5), data=st.data())
@settings(max_examples=15, deadline=None)
def test_absent_tokens_change_nothing(graphs: Graphs, absent: int, data: st.DataObject) -> None:
    _, absorbed = graphs
    tensors = prompt_tensors([PROMPTS[:2], PROMPTS[1:3]], LOW_RES)
    present = tensors.point_labels.shape[2]
    slots = sorted(data.draw(st.permutations(range(present + absent)), label="order")[:present])
    coords = np.full((2, 2, present + absent, 2), 77.0, np.float32)
    labels = np.full((2, 2, present + absent), ABSENT, np.int32)
    coords[:, :, slots], labels[:, :, slots] = tensors.point_coords, tensors.point_labels
    padded = tensors._replace(point_coords=coords, point_labels=labels)
    assert_same(decode(absorbed, 2, padded), decode(absorbed, 2, tensors))


def test_a_mask_that_is_not_given_is_not_read(graphs: Graphs) -> None:
    tensors = prompt_tensors([[PROMPTS[0]]], LOW_RES)
    rubbish = tensors._replace(mask_input=np.full_like(tensors.mask_input, np.nan))
    masks, scores = (decode(graphs[1], 1, each) for each in (tensors, rubbish))
    assert_same(scores, masks)
