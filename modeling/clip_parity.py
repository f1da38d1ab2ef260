"""The parity gate of CLIP's graphs: their outputs are compared with PyTorch's."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modeling.clip_checkpoint import ClipCheckpoint
from modeling.differences import distance, largest
from modeling.parity import ParityFailed
from modeling.probes import probe_images
from modeling.runtimes import GraphRunner
from modeling.thresholds import SEPARATION

MAX_ERROR = 1e-4
"""Error bound for embeddings of length 1. Float32 sums in a different order differ by about 1e-6."""

_PROBES = 3


@dataclass(frozen=True, slots=True)
class ClipFigures:
    """Differences between the graphs and PyTorch. "Error" is the largest absolute difference of embeddings of length 1.

    Attributes:
        image_separation: the smallest distance between the embeddings of two images.
        text_separation: likewise, of two texts.
        padding_error: between a text in a batch and alone.
    """

    image_error: float
    text_error: float
    image_separation: float
    text_separation: float
    padding_error: float


def check_clip(checkpoint: ClipCheckpoint, images: GraphRunner, texts: GraphRunner) -> ClipFigures:
    """Compare both graphs with PyTorch on probe images and texts.

    Raises:
        ParityFailed: they do not compute what the model computes, or do not tell images or texts apart.
    """
    vision, text = checkpoint.config.vision_config, checkpoint.config.text_config
    crops = np.stack([probe.image for probe in probe_images(_PROBES, vision.image_size)])
    tokens = _probe_tokens(text.max_position_embeddings, text.vocab_size, text.bos_token_id, _end_token(text))
    [image_embeds], [text_embeds] = images(crops), texts(tokens)
    alone = np.concatenate([texts(row[None])[0] for row in tokens])
    figures = ClipFigures(
        image_error=largest(image_embeds - _image_features(checkpoint, crops)),
        text_error=largest(text_embeds - _text_features(checkpoint, tokens)),
        image_separation=min(distance(*pair) for pair in combinations(image_embeds, 2)),
        text_separation=min(distance(*pair) for pair in combinations(text_embeds, 2)),
        padding_error=largest(alone - text_embeds),
    )
    errors = (figures.image_error, figures.text_error, figures.padding_error)
    separations = (figures.image_separation, figures.text_separation)
    if not (all(error <= MAX_ERROR for error in errors) and all(value >= SEPARATION for value in separations)):
        raise ParityFailed(f"CLIP's graphs differ from PyTorch: {figures}")
    return figures


def _image_features(checkpoint: ClipCheckpoint, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (checkpoint.image_mean, checkpoint.image_std))
    pixel_values = torch.tensor((crops / 255 - mean) / std, dtype=torch.float32)
    with torch.no_grad():
        return _unit(checkpoint.model.get_image_features(pixel_values=pixel_values))


def _text_features(checkpoint: ClipCheckpoint, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        return _unit(checkpoint.model.get_text_features(input_ids=torch.tensor(tokens, dtype=torch.int64)))


def _unit(features: Any) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = getattr(features, "pooler_output", features).numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _probe_tokens(length: int, vocabulary: int, start: int, end: int) -> npt.NDArray[np.int32]:
    """Tokens of texts with one word, with several words, and of the maximum length."""
    rng = np.random.default_rng(0)
    tokens = np.full((_PROBES, length), end, dtype=np.int32)
    tokens[:, 0] = start
    for row, words in zip(tokens, (1, length // 4, length - 2), strict=True):
        row[1 : 1 + words] = rng.choice(np.setdiff1d(np.arange(vocabulary), (start, end)), words)
    return tokens


def _end_token(text: Any) -> int:
    """The id of the end-of-text token. OpenAI's checkpoints state 2 but use the last id of the vocabulary."""
    stated = int(text.eos_token_id)
    return int(text.vocab_size) - 1 if stated == 2 else stated
