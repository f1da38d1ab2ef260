"""Timings of a request by stage."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Stage(enum.Enum):
    """A timed part of a request."""

    IMAGE_DECODE = "image_decode"
    CACHE = "cache"
    QUEUE = "queue"
    ENCODE = "encode"
    MASK_DECODE = "mask_decode"
    RANK = "rank"
    POST_PROCESS = "post_process"


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Seconds by stage, for the stages that were passed. Timings of parts add up to those of the whole."""

    seconds: Mapping[Stage, float] = field(default_factory=dict)

    def __getitem__(self, stage: Stage) -> float:
        """Seconds in this stage; 0 if it was not passed."""
        return self.seconds.get(stage, 0.0)

    def __add__(self, other: "StageTimings") -> "StageTimings":
        return StageTimings({stage: self[stage] + other[stage] for stage in (*self.seconds, *other.seconds)})

    def only(self, *stages: Stage) -> "StageTimings":
        """Restrict to these stages."""
        return StageTimings({stage: self.seconds[stage] for stage in stages if stage in self.seconds})
