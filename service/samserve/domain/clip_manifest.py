"""The manifest of the served CLIP models, which text prompts need. Written by `build_engines.py --text-model`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from samserve.domain.manifest import InvalidManifest

FILE_NAME = "clip_manifest.json"
FORMAT = 1

IMAGE_ENCODER = "clip_image_encoder"
TEXT_ENCODER = "clip_text_encoder"
"""The two CLIP models, by their names in model repositories and Triton."""

TOKENIZER_FILE = "tokenizer.json"
"""The checkpoint's tokenizer, in the format of Hugging Face's `tokenizers`, next to the manifest."""


@dataclass(frozen=True, slots=True)
class ClipManifest:
    """Sizes and identity of CLIP's pair of encoders.

    Attributes:
        fingerprint: `sha256:<hex>` over both graphs and the tokenizer.
        precision: of the arithmetic.
        image_size: side of the square crops in pixels (CLIP ViT-B/32: 224).
        context_length: tokens of a text with its start and its end (CLIP: 77).
        embedding_width: length of both encoders' embeddings (CLIP ViT-B/32: 512).
        model: for people: the checkpoint's name.
        provenance: how it was made; for people.
    """

    fingerprint: str
    precision: str
    image_size: int
    context_length: int
    embedding_width: int
    model: str = "clip"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def write(self, repository: Path) -> None:
        """Write the manifest into a model repository."""
        content = {"format": FORMAT, **asdict(self)}
        (repository / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, repository: Path) -> "ClipManifest":
        """Read the manifest of a model repository.

        Raises:
            InvalidManifest: it is missing, or not one that this version understands.
        """
        path = repository / FILE_NAME
        try:
            content = json.loads(path.read_text())
            if content.pop("format") != FORMAT:
                raise InvalidManifest(f"{path}: unsupported format; rebuild it with build_engines.py --text-model")
            return cls(**content)
        except FileNotFoundError:
            raise InvalidManifest(f"{path} is missing; build it with build_engines.py --text-model") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidManifest):
                raise
            raise InvalidManifest(
                f"cannot read {path}: {error!r}; rebuild it with build_engines.py --text-model"
            ) from error
