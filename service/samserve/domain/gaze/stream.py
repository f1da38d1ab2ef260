"""Options, samples and counters of a gaze stream."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from samserve.domain.gaze.fixations import FixationClassifier, VelocityThreshold
from samserve.domain.gaze.one_euro import OneEuroParameters
from samserve.domain.gaze.viewing import Viewing
from samserve.domain.keyframes import KeyframePolicy
from samserve.domain.prompts import CoordinateSpace
from samserve.domain.rendered_mask import MaskFormat


@dataclass(frozen=True, slots=True)
class GazeOptions:
    """Options of a stream.

    Attributes:
        field_of_view_degrees: horizontal angle that a frame spans.
        smoothing: `beta` in hertz for each degree a second; None leaves points as they are.
        classifier: made anew for the stream, once the size of its frames is known.
        min_confidence: samples below it are invalid.
        hold_seconds: how long invalid samples hold the object.
        mask_format: the form of its masks.
        max_mask_side: masks are scaled down to this longest side; 0 leaves them.
    """

    coordinate_space: CoordinateSpace = CoordinateSpace.PIXELS
    field_of_view_degrees: float = 60.0
    smoothing: OneEuroParameters | None = field(default_factory=OneEuroParameters)
    classifier: Callable[[Viewing], FixationClassifier] = VelocityThreshold
    min_confidence: float = 0.0
    hold_seconds: float = 0.3
    mask_format: MaskFormat = MaskFormat.COCO_RLE
    max_mask_side: int = 0
    keyframes: KeyframePolicy = field(default_factory=KeyframePolicy)


MAX_SAMPLE_DELAY_NANOSECONDS = 100_000_000
"""A sample up to this much older than the previous one was overtaken by it. If it is older than that, the clock was set
back."""


@dataclass(frozen=True, slots=True)
class GazeSample:
    """One sample of the tracker, as the client sent it.

    Attributes:
        timestamp_nanoseconds: of the device's clock.
        x: read only if `valid`, as `y` and `confidence`: trackers fill them with NaN while the eyes are closed.
        confidence: 1 where the tracker does not tell.
    """

    sequence: int
    timestamp_nanoseconds: int
    x: float
    y: float
    valid: bool = True
    confidence: float = 1.0


class GazeState(Enum):
    """State of an answer, as documented for the API's `GazeState`."""

    NO_FRAME = "no_frame"
    NEW_MASK = "decoded"
    SAME_OBJECT = "same_object"
    SACCADE = "saccade"
    HELD = "held"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class GazeTotals:
    """Totals of a stream, as documented for the API's `GazeCounts`."""

    samples: int
    samples_dropped: int
    samples_skipped: int
    samples_refused: int
    decodes: int
    frames: int
    frames_dropped: int
    keyframes: int
