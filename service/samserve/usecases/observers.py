"""What is reported of requests, caches and gaze streams, for whoever counts it."""

import enum
from typing import Protocol

from samserve.usecases.ports import EmbeddingSource
from samserve.usecases.timings import Stage


class CacheObserver(Protocol):
    """Is told what happens in the caches."""

    def redis_call(self, operation: str, outcome: str) -> None:
        """One use of Redis.

        Args:
            operation: `get`, `put`, `delete` (a rejected value), `lease` (what keeps and ends one only if it fails) or
                `ping` (while the breaker is open).
            outcome: `ok`, `miss`, `busy` (the lease is taken), `rejected`, `timeout`, `error`, or `skipped` (breaker
                open, or too many puts pending).
        """
        ...

    def rejected(self, reason: str) -> None:
        """A stored value was not served, for one of `embedding.REJECTION_REASONS`."""
        ...

    def breaker(self, is_open: bool) -> None:
        """The breaker before Redis opened or closed."""
        ...

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        """The memory tier now holds so much of at most `max_bytes`, after evicting so many entries."""
        ...


class Warmth(enum.Enum):
    """What a request's embeddings cost it: all cached; one encoded, for it or while it waited; or it needed none."""

    WARM = "warm"
    COLD = "cold"
    NONE = "none"


class RequestObserver(Protocol):
    """Is told what happens in requests and how they ended."""

    def request(self, rpc: str, code: str, warmth: Warmth, seconds: float) -> None:
        """A call ended with this gRPC status code after so long."""
        ...

    def embedded(self, source: EmbeddingSource) -> None:
        """A request got an embedding from there; one may need several."""
        ...

    def stage(self, stage: Stage, seconds: float) -> None:
        """A request has been in this stage, for once, for so long."""
        ...

    def prompts(self, count: int) -> None:
        """A `Segment` was answered that had so many prompts."""
        ...

    def shed(self, reason: str) -> None:
        """A call, or a message of a stream, was refused for load: one of `SHED_REASONS`."""
        ...

    def gaze_answered(self, seconds: float) -> None:
        """A gaze sample's answer was taken by the client so long after the sample was received."""
        ...


class GazeObserver(Protocol):
    """Is told what becomes of gaze samples and frames."""

    def gaze_sample(self, outcome: str) -> None:
        """One sample: one of `GAZE_SAMPLE_OUTCOMES`."""
        ...

    def gaze_frame(self, outcome: str) -> None:
        """One frame: one of `GAZE_FRAME_OUTCOMES`."""
        ...


GATEWAY_CODES = (
    "OK",
    "CANCELLED",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "UNAVAILABLE",
)
"""Names of the gRPC status codes with which the gateway's own code ends calls."""

GAZE_SAMPLE_OUTCOMES = (
    "decoded",
    "same_object",
    "saccade",
    "held",
    "released",
    "no_frame",
    "dropped",
    "refused",
    "failed",
)
GAZE_FRAME_OUTCOMES = ("received", "dropped", "keyframe", "refused")
