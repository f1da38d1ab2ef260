"""The record of one call, for metrics, logs and traces: its purpose, timings and outcome.

The outer layers fill it in: the gRPC handlers, and decorators of the use cases' ports (`observability.instrumented`).
Use cases are below this module and cannot import it; they return what should be recorded.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar

from opentelemetry.trace import Span, Tracer

from samserve.api import TENANT_METADATA_KEY
from samserve.domain.errors import CapacityExceeded, SamserveError
from samserve.usecases.embedder import EmbeddingResult
from samserve.usecases.observers import RequestObserver, Warmth
from samserve.usecases.ports import DecodedMasks, EmbeddingSource
from samserve.usecases.timings import Stage, StageTimings

_LOGGED_CHARACTERS = 128
_WARMTH = {
    EmbeddingSource.MEMORY: Warmth.WARM,
    EmbeddingSource.REDIS: Warmth.WARM,
    EmbeddingSource.COALESCED: Warmth.COLD,
    EmbeddingSource.ENCODED: Warmth.COLD,
}


class CallRecord:
    """The record of one call so far. Counted events are passed to the observer at once.

    Attributes:
        metadata: what the client sent along.
        image_id: of its image, or the last of several.
        warmth: cold once anything was encoded for it, see `Warmth`.
        timings: of its stages so far.
        code: of the gRPC status, once it has ended.
    """

    def __init__(
        self, rpc: str, request_id: str, metadata: Mapping[str, str], observer: RequestObserver, tracer: Tracer
    ) -> None:
        self.rpc = rpc
        self.request_id = request_id
        self.metadata = metadata
        self._observer = observer
        self._tracer = tracer
        self.trace_id = ""
        self.image_id = ""
        self.warmth = Warmth.NONE
        self.timings = StageTimings()
        self.prompts = 0
        self.request_bytes = self.response_bytes = 0
        self.code = ""
        self.seconds = 0.0

    @property
    def tenant(self) -> str:
        """The tenant named by the client; empty for none."""
        return self.metadata.get(TENANT_METADATA_KEY, "")

    def embedded(self, embedded: EmbeddingResult) -> None:
        """Record that the call got an embedding."""
        self.image_id = embedded.image_id
        if self.warmth is not Warmth.COLD:
            self.warmth = _WARMTH[embedded.source]
        self._observer.embedded(embedded.source)
        # A follower of another call's encode passed none of its stages; the leader's record has the time.
        is_encoded = embedded.source is EmbeddingSource.ENCODED
        self._spent(embedded.timings if is_encoded else embedded.timings.only(Stage.CACHE))

    def decoded(self, decoded: DecodedMasks) -> None:
        """Record that the call got masks."""
        self._spent(decoded.timings)

    def answered(self, timings: StageTimings) -> None:
        """Record an answer to the call or to a message of it, with the stages that belong to no port."""
        own = timings.only(Stage.RANK, Stage.POST_PROCESS)
        self._spent(own)
        if Stage.POST_PROCESS in own.seconds:
            now = time.time_ns()
            started = now - round(own[Stage.POST_PROCESS] * 1e9)
            self._tracer.start_span(Stage.POST_PROCESS.value, start_time=started).end(now)

    def prompted(self, count: int) -> None:
        """Record that a `Segment` with this many prompts was answered."""
        self.prompts = count
        self._observer.prompts(count)

    def gaze_answered(self, seconds: float) -> None:
        """Record that the client has taken the answer to a gaze sample, this many seconds after the sample was
        received."""
        self._observer.gaze_answered(seconds)

    def refused(self, error: SamserveError) -> None:
        """Record that the call, or a message of it, failed with this error."""
        if isinstance(error, CapacityExceeded):
            self._observer.shed(error.reason)

    def ended(self, code: str, seconds: float) -> None:
        """Record that the call ended with this gRPC status code after this many seconds."""
        self.code, self.seconds = code, seconds
        self._observer.request(self.rpc, code, self.warmth, seconds)

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A span for a part of the call. Spans nest like the tasks that create them."""
        return self._tracer.start_as_current_span(name)

    def ids(self) -> dict[str, str | int | float]:
        """Ids that identify the call in the log."""
        given = {"request_id": self.request_id, "trace_id": self.trace_id, "tenant": self.tenant[:_LOGGED_CHARACTERS]}
        return {name: value for name, value in given.items() if value}

    def summary(self) -> dict[str, str | int | float]:
        """All log fields of an ended call. Of the image they contain only the id."""
        described: dict[str, str | int | float] = {
            "rpc": self.rpc,
            "code": self.code,
            "seconds": round(self.seconds, 6),
            "embedding": self.warmth.value,
            "image_id": self.image_id,
            "prompts": self.prompts,
            "request_bytes": self.request_bytes,
            "response_bytes": self.response_bytes,
        }
        spent = {f"{stage.value}_seconds": round(seconds, 6) for stage, seconds in self.timings.seconds.items()}
        return {name: value for name, value in described.items() if value not in ("", 0)} | spent

    def _spent(self, timings: StageTimings) -> None:
        self.timings += timings
        for stage, seconds in timings.seconds.items():
            self._observer.stage(stage, seconds)


_current: ContextVar[CallRecord | None] = ContextVar("call", default=None)


def begin(call: CallRecord) -> None:
    """Make this the current call of this task and of the tasks that it starts."""
    _current.set(call)


def present_call() -> CallRecord | None:
    """The current call of this task, or None."""
    return _current.get()


def current_call() -> CallRecord:
    """The current call of this task, which must exist."""
    call = _current.get()
    assert call is not None, "this runs only inside calls"
    return call
