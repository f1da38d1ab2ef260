"""Interfaces through which requests, caches and gaze streams report events to metrics."""

import enum
from typing import Protocol

from samserve.usecases.ports import EmbeddingSource
from samserve.usecases.timings import Stage


class CacheObserver(Protocol):
    """Receives events of the caches."""

    def redis_call(self, operation: str, outcome: str) -> None:
        """A call to Redis.

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
        """The circuit breaker of Redis opened or closed."""
        ...

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        """Current size of the memory tier in bytes, of at most `max_bytes`, and the number of entries just evicted."""
        ...


class Warmth(enum.Enum):
    """How a request's embeddings were obtained: all from the cache; with at least one encode, by it or awaited; or none
    needed."""

    WARM = "warm"
    COLD = "cold"
    NONE = "none"


class RequestObserver(Protocol):
    """Receives events of requests."""

    def request(self, rpc: str, code: str, warmth: Warmth, seconds: float) -> None:
        """A call ended with this gRPC status code after this many seconds."""
        ...

    def embedded(self, source: EmbeddingSource) -> None:
        """A request got an embedding from this source. A request may need several."""
        ...

    def stage(self, stage: Stage, seconds: float) -> None:
        """A request passed this stage once, in this many seconds."""
        ...

    def prompts(self, count: int) -> None:
        """A `Segment` with this many prompts was answered."""
        ...

    def shed(self, reason: str) -> None:
        """A call, or a message of a stream, was rejected for load: one of `SHED_REASONS`."""
        ...

    def gaze_answered(self, seconds: float) -> None:
        """The client took a gaze sample's answer this many seconds after the sample was received."""
        ...


class GazeObserver(Protocol):
    """Receives outcomes of gaze samples and frames."""

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
