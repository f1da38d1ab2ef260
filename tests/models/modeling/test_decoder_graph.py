"""The exported decoder's module against `SamModel` itself, and what batching must not change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SamModel

from modeling.decoder_graph import MaskDecoderGraph
from modeling.probes import probe_prompts
from modeling.prompts import ABSENT, FloatArray, Prompt, PromptTensors, prompt_tensors
from modeling.reference import ReferenceSam

IMAGE_SIZE = 128
LOW_RES = 32
GRID = 8
# Float32 sums in another order, on logits of some ten units.
ROUNDING = 1e-4
PROMPTS = probe_prompts((IMAGE_SIZE, 100), LOW_RES)

coordinate = st.floats(-20, IMAGE_SIZE + 20, width=32)
point = st.tuples(coordinate, coordinate)


@pytest.fixture(scope="module")
def graph(small_model: SamModel) -> MaskDecoderGraph:
    return MaskDecoderGraph(small_model)


def embeddings(count: int) -> FloatArray:
    random = np.random.default_rng(3)
    return random.normal(0, 1, (count, 256, GRID, GRID)).astype(np.float16).astype(np.float32)


def decode(graph: MaskDecoderGraph, images: FloatArray, tensors: PromptTensors) -> tuple[FloatArray, FloatArray]:
    with torch.inference_mode():
        masks, scores = graph(torch.from_numpy(images).half(), *(torch.from_numpy(array) for array in tensors))
    return masks.numpy(), scores.numpy()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_kind_of_prompt_gets_sams_masks_and_scores(
    graph: MaskDecoderGraph, small_reference: ReferenceSam, prompt: Prompt
) -> None:
    [image] = embeddings(1)
    masks, scores = decode(graph, image[None], prompt_tensors([[prompt]], LOW_RES))
    expected_masks, expected_scores = small_reference.predict(image, prompt)
    assert masks.shape == (1, 1, 4, LOW_RES, LOW_RES)
    assert scores.shape == (1, 1, 4)
    np.testing.assert_allclose(masks[0, 0], expected_masks, atol=ROUNDING)
    np.testing.assert_allclose(scores[0, 0], expected_scores, atol=ROUNDING)


def test_the_masks_compared_are_not_trivial(small_reference: ReferenceSam) -> None:
    masks, _ = small_reference.predict(embeddings(1)[0], PROMPTS[0])
    assert 0.05 < (masks > 0).mean() < 0.95
    assert np.abs(masks).max() > 1


def test_different_images_with_different_prompts_share_a_batch(
    graph: MaskDecoderGraph, small_reference: ReferenceSam
) -> None:
    images = embeddings(3)
    rows = [PROMPTS, PROMPTS[::-1], PROMPTS[2:] + PROMPTS[:2]]
    masks, scores = decode(graph, images, prompt_tensors(rows, LOW_RES))
    for index, (image, prompts) in enumerate(zip(images, rows, strict=True)):
        for place, prompt in enumerate(prompts):
            expected_masks, expected_scores = small_reference.predict(image, prompt)
            np.testing.assert_allclose(masks[index, place], expected_masks, atol=ROUNDING)
            np.testing.assert_allclose(scores[index, place], expected_scores, atol=ROUNDING)


@given(
    points=st.lists(st.tuples(point, st.sampled_from([0, 1])), min_size=1, max_size=4),
    absent=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_absent_tokens_change_nothing_wherever_they_stand_and_whatever_they_hold(
    graph: MaskDecoderGraph, points: list[tuple[tuple[float, float], int]], absent: int, data: st.DataObject
) -> None:
    image = embeddings(1)
    prompt = Prompt(points=tuple(place for place, _ in points), labels=tuple(label for _, label in points))
    tensors = prompt_tensors([[prompt]], LOW_RES)
    present = tensors.point_labels.shape[2]

    total = present + absent
    slots = sorted(data.draw(st.permutations(range(total)), label="order")[:present])
    coords = np.array(data.draw(st.lists(point, min_size=total, max_size=total)), np.float32).reshape(1, 1, total, 2)
    labels = np.full((1, 1, total), ABSENT, np.int32)
    coords[0, 0, slots] = tensors.point_coords[0, 0]
    labels[0, 0, slots] = tensors.point_labels[0, 0]

    masks, scores = decode(graph, image, tensors)
    padded_masks, padded_scores = decode(graph, image, tensors._replace(point_coords=coords, point_labels=labels))
    np.testing.assert_allclose(padded_masks, masks, atol=ROUNDING / 2)
    np.testing.assert_allclose(padded_scores, scores, atol=ROUNDING / 2)


@given(order=st.permutations(range(len(PROMPTS))))
@settings(max_examples=10, deadline=None)
def test_reordering_prompts_reorders_answers(graph: MaskDecoderGraph, order: list[int]) -> None:
    image = embeddings(1)
    masks, scores = decode(graph, image, prompt_tensors([PROMPTS], LOW_RES))
    reordered = prompt_tensors([[PROMPTS[index] for index in order]], LOW_RES)
    reordered_masks, reordered_scores = decode(graph, image, reordered)
    np.testing.assert_allclose(reordered_masks, masks[:, order], atol=ROUNDING / 2)
    np.testing.assert_allclose(reordered_scores, scores[:, order], atol=ROUNDING / 2)


def test_a_mask_that_is_not_given_is_not_read(graph: MaskDecoderGraph) -> None:
    image = embeddings(1)
    tensors = prompt_tensors([[PROMPTS[0]]], LOW_RES)
    masks, _ = decode(graph, image, tensors)
    rubbish = np.full_like(tensors.mask_input, np.nan)
    with_rubbish, _ = decode(graph, image, tensors._replace(mask_input=rubbish))
    np.testing.assert_array_equal(with_rubbish, masks)


def test_the_padding_point_of_sam_counts_and_an_absent_token_does_not(graph: MaskDecoderGraph) -> None:
    image = embeddings(1)
    tensors = prompt_tensors([[PROMPTS[0]]], LOW_RES)
    masks, _ = decode(graph, image, tensors)
    labels = tensors.point_labels.copy()
    labels[0, 0, -1] = ABSENT
    without_padding_point, _ = decode(graph, image, tensors._replace(point_labels=labels))
    assert np.abs(without_padding_point - masks).max() > 100 * ROUNDING
