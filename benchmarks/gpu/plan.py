"""Names of stages and models, without importing PyTorch."""

from dataclasses import dataclass

MODEL_NAMES = ("vit_b", "vit_l", "vit_h", "tiny")
"""Meta's ViTs, and a small model with the bundled model's input size, for CPUs."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: also its module's, in this package, whose `run(bench)` does the work.
        least_seconds: with less left, it is not begun.
        most_seconds: after these, no further figure is begun, and after some more it is stopped.
    """

    name: str
    least_seconds: float
    most_seconds: float


STAGES = (
    Stage("ceilings", 10, 40),
    Stage("parity", 20, 50),
    Stage("attention", 15, 50),
    Stage("encoder", 25, 150),
    Stage("decoder", 20, 80),
    Stage("fp8", 8, 20),
    Stage("profile", 15, 50),
)
"""Most important stage first. Times are those of an H100 with ViT-H."""
