"""The parity gate: compare a pair of graphs, exported or compiled, with PyTorch in float32."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations

import numpy as np

from modeling.differences import cosine, distance, largest, mask_iou
from modeling.precision import FP32
from modeling.probes import ProbeImage, probe_images, probe_prompts
from modeling.progress import Tell
from modeling.prompts import FloatArray, Prompt, prompt_tensors
from modeling.reference import ReferenceSam
from modeling.runtimes import GraphRunner
from modeling.thresholds import DEFAULT_IMAGES, MIN_IMAGES, THRESHOLDS, Thresholds


class ParityFailed(Exception):
    """The exported graphs do not compute what the PyTorch model computes; the message names the figures out of
    bounds."""


@dataclass(frozen=True, slots=True)
class ParityFigures:
    """Differences between the graphs and PyTorch in float32. "Error" is the largest absolute difference.

    Attributes:
        images: number of images tried.
        prompts: number of prompts tried on each image.
        embedding_error: of the embeddings, whose values have a standard deviation near 1.
        embedding_cosine: the smallest over the images.
        embedding_separation: the smallest distance between the embeddings of two images, as a part of their norm.
        logit_error: of `low_res_masks` from the same embedding, as a part of the largest logit.
        score_error: of `iou_predictions` from the same embedding.
        mask_iou_min: of a mask (logits above 0, `mask_iou`) from the image to the end, the worst one of all.
        mask_iou_median: likewise, the median.
        padding_error: between prompts batched with others and the same prompts alone, as a part of the largest logit.
    """

    images: int
    prompts: int
    embedding_error: float
    embedding_cosine: float
    embedding_separation: float
    logit_error: float
    score_error: float
    mask_iou_min: float
    mask_iou_median: float
    padding_error: float


def check_parity(
    reference: ReferenceSam,
    encoder: GraphRunner,
    decoder: GraphRunner,
    *,
    images: int = DEFAULT_IMAGES,
    thresholds: Thresholds = THRESHOLDS[FP32],
    tell: Tell = lambda progress: None,
) -> ParityFigures:
    """Measure both graphs and check the figures against the thresholds.

    Args:
        reference: the PyTorch model with the weights that the graphs should have.
        encoder: runs `sam_image_encoder`.
        decoder: runs `sam_mask_decoder`.
        images: how many different images to try, at least `MIN_IMAGES`.
        thresholds: what to demand, of `thresholds.THRESHOLDS`.
        tell: is told how far it is.

    Raises:
        ParityFailed: a figure is out of bounds or not a number.
        ValueError: too few images to see whether the encoder tells them apart.
    """
    if images < MIN_IMAGES:
        raise ValueError(f"the gate needs at least {MIN_IMAGES} images, not {images}")
    figures = measure(reference, encoder, decoder, probe_images(images, reference.sizes.image_size), tell)
    failures = [
        f"{name} is {value:.3g}, {'above' if name.endswith('_error') else 'below'} {bound:g}"
        for name, value, bound in (
            (bound.name, getattr(figures, bound.name), getattr(thresholds, bound.name)) for bound in fields(thresholds)
        )
        if not (value <= bound if name.endswith("_error") else value >= bound)
    ]
    if failures:
        raise ParityFailed(f"the graphs differ from PyTorch: {'; '.join(failures)}")
    return figures


def measure(
    reference: ReferenceSam,
    encoder: GraphRunner,
    decoder: GraphRunner,
    probes: Sequence[ProbeImage],
    tell: Tell = lambda progress: None,
) -> ParityFigures:
    """Measure both graphs on probes, at least `MIN_IMAGES`; arguments as for `check_parity`."""
    low_res = reference.sizes.low_res_size
    encoded = []
    for index, probe in enumerate(probes):
        tell(f"encoding image {index + 1} of {len(probes)}")
        [answer] = encoder(probe.image[None], np.array([probe.input_size], np.int32))
        encoded.append((reference.embed(*probe), answer[0]))
    expected, embeddings = (np.stack(arrays) for arrays in zip(*encoded, strict=True))
    rows = [probe_prompts(probe.input_size, low_res) for probe in probes]

    tell("decoding")
    answers = [_answers(reference, decoder, *pair) for pair in zip(embeddings, rows, strict=True)]
    alone = np.stack([graph_masks for graph_masks, _, _ in answers])
    batched = np.asarray(decoder(embeddings, *prompt_tensors(rows, low_res))[0])
    ious = [
        mask_iou(mask, reference.predict(embedding, prompt)[0])
        for embedding, prompts, masks in zip(expected, rows, alone, strict=True)
        for prompt, mask in zip(prompts, masks, strict=True)
    ]
    return ParityFigures(
        images=len(probes),
        prompts=len(rows[0]),
        embedding_error=largest(expected - embeddings),
        embedding_cosine=min(cosine(*pair) for pair in zip(expected, embeddings, strict=True)),
        embedding_separation=min(distance(first, second) for first, second in combinations(embeddings, 2)),
        logit_error=max(logit_error for _, logit_error, _ in answers),
        score_error=max(score_error for _, _, score_error in answers),
        mask_iou_min=float(np.min(ious)),
        mask_iou_median=float(np.median(ious)),
        padding_error=largest(batched - alone) / largest(alone),
    )


def _answers(
    reference: ReferenceSam, decoder: GraphRunner, embedding: FloatArray, prompts: Sequence[Prompt]
) -> tuple[FloatArray, float, float]:
    """Decode each prompt alone. Returns masks `[P, 4, M, M]`, logit error and score error."""
    graph_masks, logit_errors, score_errors = [], [], []
    for prompt in prompts:
        tensors = prompt_tensors([[prompt]], reference.sizes.low_res_size)
        masks, scores = (output[0, 0] for output in decoder(embedding[None], *tensors))
        expected_masks, expected_scores = reference.predict(embedding, prompt)
        graph_masks.append(masks)
        logit_errors.append(largest(masks - expected_masks) / largest(expected_masks))
        score_errors.append(largest(scores - expected_scores))
    # np.max propagates NaN; max would not.
    return np.stack(graph_masks), float(np.max(logit_errors)), float(np.max(score_errors))
