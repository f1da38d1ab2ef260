"""Parity of every formulation in half precision with the float32 model on the same device."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import SamModel

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.decoder import FORMULATIONS as DECODERS
from benchmarks.gpu.decoder import decoder_module
from benchmarks.gpu.models import kit_model
from benchmarks.gpu.vit import FORMULATIONS, encoder_graph
from modeling.differences import cosine, distance, largest, mask_iou
from modeling.probes import ProbeImage, probe_images, probe_prompts
from modeling.prompts import FloatArray, Prompt, prompt_tensors
from modeling.random_weights import grow_outliers
from modeling.reference import ReferenceSam

IMAGES = 3


def run(bench: Bench) -> None:
    """Compare encoders, then decoders, on the parity gate's images and prompts; then encoders whose weights have
    outliers."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = kit_model(bench.model, bench.seed, bench.device)
    expected = Expected(model, IMAGES if bench.on_gpu else 1)
    formulations, decoders = list(FORMULATIONS), list(DECODERS)
    if not bench.on_gpu:
        # The other formulations run their kernels in other stages; interpreted on a CPU they take seconds.
        formulations, decoders = ["bias", "folded", "padded late", "streamed"], ["exported", "absorbed"]
    for formulation in formulations:
        _encoder(bench, model, expected, formulation, "random")
    for decoder in decoders:
        _decoder(bench, model, expected, decoder)
    if bench.on_gpu:
        grow_outliers(model.vision_encoder)
        uneven = Expected(model, IMAGES)
        for formulation in formulations:
            _encoder(bench, model, uneven, formulation, "random, with outlier channels as trained ViTs have them")


class Case(NamedTuple):
    """One image with its float32 embedding `[C, G, G]` and the masks `[4, M, M]` of each prompt."""

    probe: ProbeImage
    embedding: FloatArray
    prompts: Sequence[Prompt]
    masks: Sequence[FloatArray]


class Expected:
    """Embeddings and masks of the float32 model, computed once."""

    def __init__(self, model: SamModel, images: int) -> None:
        self.reference = ReferenceSam(model)
        self.cases = [self._case(probe) for probe in probe_images(images, self.reference.sizes.image_size)]

    def _case(self, probe: ProbeImage) -> Case:
        embedding = self.reference.embed(*probe)
        prompts = probe_prompts(probe.input_size, self.reference.sizes.low_res_size)
        return Case(probe, embedding, prompts, [self.reference.predict(embedding, prompt)[0] for prompt in prompts])


def _encoder(bench: Bench, model: SamModel, expected: Expected, formulation: Any, weights: str) -> None:
    about = {"name": f"encoder: {formulation}", "precision": "fp16", "weights": weights}

    def compare() -> None:
        graph = encoder_graph(model, formulation)
        embeddings = []
        for case in expected.cases:
            image = torch.from_numpy(case.probe.image)[None].to(bench.device)
            size = torch.tensor([case.probe.input_size], dtype=torch.int32, device=bench.device)
            embeddings.append(graph(image, size)[0].float().cpu().numpy())
        # Both sides use the float32 decoder, so that only the encoder differs.
        decode = expected.reference.predict
        ious = _ious(expected, embeddings, lambda embedding, prompt: decode(embedding, prompt)[0])
        pairs = [(case.embedding, embedding) for case, embedding in zip(expected.cases, embeddings, strict=True)]
        bench.write(
            {
                **about,
                "images": len(pairs),
                "embedding_error": max(largest(first - second) for first, second in pairs),
                "embedding_cosine": min(cosine(first, second) for first, second in pairs),
                "embedding_distance": max(distance(first, second) for first, second in pairs),
                **ious,
            }
        )

    bench.attempt(about, compare)


def _decoder(bench: Bench, model: SamModel, expected: Expected, formulation: str) -> None:
    about = {"name": f"decoder: {formulation}", "precision": "fp16", "weights": "random"}
    low_res = expected.reference.sizes.low_res_size
    graph = bench.attempt(about, lambda: decoder_module(model, formulation, bench.device, "eager"))
    errors: list[float] = []

    def decode(embedding: FloatArray, prompt: Prompt) -> FloatArray:
        tensors = [torch.from_numpy(array).to(bench.device) for array in prompt_tensors([[prompt]], low_res)]
        rounded = torch.from_numpy(embedding.astype(np.float16))[None].to(bench.device)
        masks: FloatArray = graph(rounded, *tensors)[0][0, 0].cpu().numpy()
        reference = expected.reference.predict(embedding, prompt)[0]
        errors.append(largest(masks - reference) / largest(reference))
        return masks

    def compare() -> None:
        ious = _ious(expected, [case.embedding for case in expected.cases], decode)
        bench.write({**about, "images": len(expected.cases), "logit_error": max(errors), **ious})

    if graph is not None:
        bench.attempt(about, compare)


def _ious(
    expected: Expected, embeddings: Sequence[FloatArray], decode: Callable[[FloatArray, Prompt], FloatArray]
) -> dict[str, float]:
    """Mean and smallest IoU of masks: over decided pixels, as the parity gate counts them, and over all pixels."""
    decided, every = [], []
    for case, embedding in zip(expected.cases, embeddings, strict=True):
        for prompt, masks in zip(case.prompts, case.masks, strict=True):
            answer = decode(embedding, prompt)
            decided += mask_iou(answer, masks)
            every += [_plain_iou(first > 0, second > 0) for first, second in zip(answer, masks, strict=True)]
    return {
        "masks": len(every),
        "iou_mean": float(np.mean(decided)),
        "iou_least": float(np.min(decided)),
        "iou_mean_all_pixels": float(np.mean(every)),
        "iou_least_all_pixels": float(np.min(every)),
    }


def _plain_iou(first: Any, second: Any) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0
