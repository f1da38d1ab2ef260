"""The recipe of a run, read from TOML."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Config:
    """See tiny.toml.

    Attributes:
        crops: of the photographs that get masks.
        image_size: side of the model's input.
        batch: pictures of a step.
        objects: of each picture.
        rounds: interactive rounds: first a point or a box, then points where the last mask was wrong.
        learning_rate: of prompt encoder and mask decoder.
        encoder_share: of it, for the image encoder.
    """

    seed: int
    crops: int
    image_size: int
    batch: int
    objects: int
    rounds: int
    steps: int
    learning_rate: float
    encoder_share: float
    weight_decay: float
    warmup_steps: int
    gradient_norm: float
    ema_decay: float
    save_every: int

    @classmethod
    def read(cls, path: Path) -> "Config":
        return cls(**tomllib.loads(path.read_text()))
