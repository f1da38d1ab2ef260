"""Reading a CLIP checkpoint: a folder in the layout of Hugging Face's `transformers`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from transformers import CLIPConfig, CLIPModel
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from modeling.checkpoints import InvalidCheckpoint
from samserve.domain.clip_manifest import TOKENIZER_FILE

WEIGHTS_FILE = "model.safetensors"
_CONFIG_FILE = "config.json"
_PREPROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True, slots=True)
class ClipCheckpoint:
    """A CLIP model with its preprocessing and tokenizer.

    Attributes:
        image_mean: of R, G and B in [0, 1], by which the model's images are normalised.
        image_std: likewise.
        tokenizer: the file.
    """

    model: CLIPModel
    image_mean: Sequence[float]
    image_std: Sequence[float]
    tokenizer: Path

    @property
    def config(self) -> Any:
        """The model's configuration. Its parts are typed as unknown until they are read."""
        return self.model.config


def load_clip(folder: Path) -> ClipCheckpoint:
    """Load a checkpoint, weights as float32. Nothing is downloaded, and no code of the checkpoint's runs.

    Args:
        folder: with `config.json`, the weights as `model.safetensors` and `tokenizer.json`.

    Raises:
        InvalidCheckpoint: a file is missing or cannot be read, or it is not a CLIP.
    """
    for name in (_CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise InvalidCheckpoint(f"{folder / name} is missing; download the whole folder of a CLIP checkpoint")
    try:
        kind = json.loads((folder / _CONFIG_FILE).read_text()).get("model_type")
        if kind != CLIPConfig.model_type:
            raise InvalidCheckpoint(f"{folder} contains a model of type {kind!r}, not CLIP")
        loaded: Any = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="float32", output_loading_info=True
        )
        model, report = loaded
        preprocessor = folder / _PREPROCESSOR_FILE
        said = json.loads(preprocessor.read_text()) if preprocessor.is_file() else {}
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise InvalidCheckpoint(f"{folder} cannot be read: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise InvalidCheckpoint(f"{folder} lacks weights of CLIP: {sorted(report['missing_keys'])[:3]}")
    mean, std = said.get("image_mean", OPENAI_CLIP_MEAN), said.get("image_std", OPENAI_CLIP_STD)
    return ClipCheckpoint(model.eval(), mean, std, folder / TOKENIZER_FILE)
