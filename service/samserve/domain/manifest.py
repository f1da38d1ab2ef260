"""The manifest of the served models: the facts that the gateway needs. Written by `build_engines.py`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_NAME = "manifest.json"
FORMAT = 1

ENCODER = "sam_image_encoder"
DECODER = "sam_mask_decoder"
"""The two models, by their names in model repositories and Triton."""

MASK_GENERATION = ("pred_iou_thresh", "stability_score_thresh")
"""Parameters of the automatic mask generator whose defaults belong to the model."""


class InvalidManifest(ValueError):
    """The manifest is missing, unreadable or of an unknown format."""


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """Sizes and identity of a pair of encoder and decoder.

    Attributes:
        model: name of the architecture: `vit_h`, `vit_l`, `vit_b`, `vit_t` or `tiny`.
        fingerprint: `sha256:<hex>` over weights, graphs, preprocessing and precision. Part of every cache key.
        precision: `fp32` or `fp16`, the arithmetic of the graphs.
        image_size: side of the square input frame, in pixels (SAM: 1024).
        embedding_shape: `(C, H, W)` of an image embedding (SAM: 256, 64, 64). Its dtype is float16.
        low_res_size: side of the square low-resolution mask logits (SAM: 256).
        mask_generation: the model's own defaults of `MASK_GENERATION`, by name; SAM's hold where they are not given.
            Scores of models differ, and SAM's thresholds leave few masks of a model that is less sure.
        provenance: how it was made (checkpoint, versions, parity figures); for people, and never for the gateway.
    """

    model: str
    fingerprint: str
    precision: str
    image_size: int
    embedding_shape: tuple[int, int, int]
    low_res_size: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    mask_generation: Mapping[str, float] = field(default_factory=dict)

    @property
    def embedding_bytes(self) -> int:
        """Size of one float16 embedding in bytes."""
        channels, height, width = self.embedding_shape
        return channels * height * width * 2

    def write(self, repository: Path) -> Path:
        """Write the manifest into a model repository and return its path."""
        content = {
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            "image_size": self.image_size,
            "embedding_shape": list(self.embedding_shape),
            "low_res_size": self.low_res_size,
            **({"mask_generation": dict(self.mask_generation)} if self.mask_generation else {}),
            "provenance": dict(self.provenance),
        }
        path = repository / FILE_NAME
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    @classmethod
    def read(cls, repository: Path) -> "ModelManifest":
        """Read the manifest of a model repository.

        Raises:
            InvalidManifest: it is missing, or not one that this version understands.
        """
        path = repository / FILE_NAME
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise InvalidManifest(
                    f"{path}: unsupported format {content['format']!r}, expected {FORMAT}; "
                    "rebuild the models with build_engines.py"
                )
            channels, height, width = content["embedding_shape"]
            return cls(
                model=str(content["model"]),
                fingerprint=str(content["fingerprint"]),
                precision=str(content["precision"]),
                image_size=int(content["image_size"]),
                embedding_shape=(int(channels), int(height), int(width)),
                low_res_size=int(content["low_res_size"]),
                provenance=content.get("provenance", {}),
                mask_generation=read_mask_generation(content.get("mask_generation", {})),
            )
        except FileNotFoundError:
            raise InvalidManifest(f"{path} is missing; build the models with build_engines.py") from None
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidManifest):
                raise
            raise InvalidManifest(f"cannot read {path}: {error!r}; rebuild the models with build_engines.py") from error


def read_mask_generation(values: Mapping[str, Any]) -> dict[str, float]:
    """The defaults of `MASK_GENERATION` among these values, numbers or texts.

    Raises:
        ValueError: one is not a number from 0 to 1.
    """
    thresholds = {name: float(values[name]) for name in MASK_GENERATION if name in values}
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")
    return thresholds
