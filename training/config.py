"""The configuration of a run, read from TOML."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Config:
    """Configuration of a run, such as tiny.toml.

    Attributes:
        crops: number of crops of photographs that get masks.
        image_size: side of the model's input in pixels.
        batch: images per step.
        objects: objects per image.
        rounds: interactive rounds: first a point or a box, then points in the previous mask's error region.
        learning_rate: learning rate of prompt encoder and mask decoder.
        encoder_share: learning rate of the image encoder, relative to `learning_rate`.
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
