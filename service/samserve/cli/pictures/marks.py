"""The prompt as drawn in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptMarks:
    """What was asked.

    Attributes:
        points: (x, y, label), label 1 foreground or 0 background.
        box: XYXY.
    """

    points: Sequence[tuple[float, float, int]] = ()
    box: tuple[float, float, float, float] | None = None
