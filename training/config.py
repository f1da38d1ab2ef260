"""The recipe of a run, read from TOML."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """Some steps at one resolution."""

    image_size: int
    batch: int
    objects: int
    rounds: int
    """Interactive rounds through the whole decoder; none: clicks past its transformer alone."""
    steps: int


@dataclass(frozen=True)
class Config:
    """See tiny.toml."""

    seed: int
    learning_rate: float
    trunk_share: float
    """Share of the learning rate that the pretrained trunk learns with."""
    weight_decay: float
    warmup_steps: int
    gradient_norm: float
    ema_decay: float
    save_every: int
    crops: int
    scenes: int
    pools: tuple[str, ...]
    stage: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stage)

    @classmethod
    def read(cls, path: Path) -> "Config":
        content = tomllib.loads(path.read_text())
        content["stage"] = tuple(Stage(**stage) for stage in content["stage"])
        content["pools"] = tuple(content["pools"])
        return cls(**content)

    def stages_from(self, step: int) -> list[tuple[Stage, int, int]]:
        """What is left after `step` steps: each stage with its first step, counted over the run, and its number."""
        left, start = [], 0
        for stage in self.stage:
            first, end = max(start, step), start + stage.steps
            if first < end:
                left.append((stage, first, end - first))
            start = end
        return left
