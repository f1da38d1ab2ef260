"""One call as operators see it: what it was for, where its time went, how it ended.

The edge writes it: the gRPC handlers, and what is put around the use cases' ports (`observability.instrumented`). Use
cases lie below this module and cannot import it; what they have to tell they return.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

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

Note = Callable[[str, str], None]


class Tracer(Protocol):
    """Makes the spans of calls. They nest as the tasks do that make them."""

    def call(self, call: "CallRecord") -> AbstractContextManager[None]:
        """The span of a call, under the one that its metadata names; it tells the call its `trace_id`."""
        ...

    def span(self, name: str) -> AbstractContextManager[Note]:
        """A part of what is going on; the value notes an attribute of it."""
        ...

    def past_span(self, name: str, seconds: float) -> None:
        """A part of what is going on, which has just ended and took so long."""
        ...

    def headers(self) -> Mapping[str, str]:
        """What to send along to another server, for its spans to lie under the present one."""
        ...


class NoTracer:
    """Implements `Tracer` where nobody asked for one."""

    def call(self, call: "CallRecord") -> AbstractContextManager[None]:
        """See `Tracer.call`."""
        return nullcontext()

    def span(self, name: str) -> AbstractContextManager[Note]:
        """See `Tracer.span`."""
        return nullcontext(_ignore)

    def past_span(self, name: str, seconds: float) -> None:
        """See `Tracer.past_span`."""

    def headers(self) -> Mapping[str, str]:
        """See `Tracer.headers`."""
        return {}


class CallRecord:
    """What is known of one call so far. What is counted is passed on to the observer at once.

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
        """As the client named it; empty for none."""
        return self.metadata.get(TENANT_METADATA_KEY, "")

    def embedded(self, embedded: EmbeddingResult) -> None:
        """It got an embedding."""
        self.image_id = embedded.image_id
        if self.warmth is not Warmth.COLD:
            self.warmth = _WARMTH[embedded.source]
        self._observer.embedded(embedded.source)
        # One who waited for another's encode was in none of its stages: its time is counted there.
        is_encoded = embedded.source is EmbeddingSource.ENCODED
        self._spent(embedded.timings if is_encoded else embedded.timings.only(Stage.CACHE))

    def decoded(self, decoded: DecodedMasks) -> None:
        """It got masks."""
        self._spent(decoded.timings)

    def answered(self, timings: StageTimings) -> None:
        """It, or a message of it, was answered: record the stages that belong to no port of the use cases."""
        own = timings.only(Stage.RANK, Stage.POST_PROCESS)
        self._spent(own)
        if Stage.POST_PROCESS in own.seconds:
            self._tracer.past_span(Stage.POST_PROCESS.value, own[Stage.POST_PROCESS])

    def prompted(self, count: int) -> None:
        """It is a `Segment` that was answered, of so many prompts."""
        self.prompts = count
        self._observer.prompts(count)

    def gaze_answered(self, seconds: float) -> None:
        """The client has taken the answer to a gaze sample, so long after the sample was received."""
        self._observer.gaze_answered(seconds)

    def refused(self, error: SamserveError) -> None:
        """It, or a message of it, failed because of this."""
        if isinstance(error, CapacityExceeded):
            self._observer.shed(error.reason)

    def ended(self, code: str, seconds: float) -> None:
        """It ended with this gRPC status code after so long."""
        self.code, self.seconds = code, seconds
        self._observer.request(self.rpc, code, self.warmth, seconds)

    def span(self, name: str) -> AbstractContextManager[Note]:
        """A part of it, to be seen in its trace. See `Tracer.span`."""
        return self._tracer.span(name)

    def traced(self) -> AbstractContextManager[None]:
        """All of it, as a trace sees it. See `Tracer.call`."""
        return self._tracer.call(self)

    def ids(self) -> dict[str, str | int | float]:
        """What tells it from other calls, for the log."""
        given = {"request_id": self.request_id, "trace_id": self.trace_id, "tenant": self.tenant[:_LOGGED_CHARACTERS]}
        return {name: value for name, value in given.items() if value}

    def summary(self) -> dict[str, str | int | float]:
        """All that the log says of it once it has ended. Nothing of the image but its name is among it."""
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
    """From now on this task, and those that it starts, run for this call."""
    _current.set(call)


def present_call() -> CallRecord | None:
    """The call that this code runs for, in its task or in one that it started; None if it runs for none."""
    return _current.get()


def current_call() -> CallRecord:
    """The same, where there must be one."""
    call = _current.get()
    assert call is not None, "this runs only inside calls"
    return call


def _ignore(name: str, value: str) -> None:
    pass
