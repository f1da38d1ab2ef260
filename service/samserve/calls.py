"""One call as operators see it: what it was for, where its time went, how it ended.

The edge writes it: the gRPC faces, and what is put around the use cases and ports (`adapters.observed`). Use cases lie
below this module and cannot import it; what they have to tell they return.
"""

from contextvars import ContextVar

from samserve.domain.errors import Overloaded, SamserveError
from samserve.embedder import EmbeddedImage
from samserve.ports import DecodedMasks, EmbeddingSource, RequestObserver, Stage, Warmth

_WARMTH = {
    EmbeddingSource.MEMORY: Warmth.WARM,
    EmbeddingSource.REDIS: Warmth.WARM,
    EmbeddingSource.COALESCED: Warmth.COLD,
    EmbeddingSource.ENCODED: Warmth.COLD,
}


class Call:
    """What is known of one call so far. What is counted is passed on to the observer at once.

    Attributes:
        tenant: as the client named it.
        image_id: of its image, or the last of several.
        warmth: cold once anything was encoded for it, see `Warmth`.
        stages: seconds by stage, summed up.
        code: of the gRPC status, once it has ended.
    """

    def __init__(self, rpc: str, request_id: str, tenant: str, observer: RequestObserver) -> None:
        self.rpc = rpc
        self.request_id = request_id
        self.tenant = tenant
        self._observer = observer
        self.image_id = ""
        self.warmth = Warmth.NONE
        self.stages: dict[Stage, float] = {}
        self.prompts = 0
        self.request_bytes = self.response_bytes = 0
        self.code = ""
        self.seconds = 0.0

    def embedded(self, embedded: EmbeddedImage) -> None:
        """It got an embedding."""
        self.image_id = embedded.image_id
        if self.warmth is not Warmth.COLD:
            self.warmth = _WARMTH[embedded.source]
        self._observer.embedded(embedded.source)
        self._spent(Stage.CACHE, embedded.cache_seconds)
        # One who waited for another's encode was in none of its stages: its time is counted there.
        if embedded.source is EmbeddingSource.ENCODED:
            self._spent(Stage.IMAGE_DECODE, embedded.image_decode_seconds)
            self._spent(Stage.QUEUE, embedded.queue_seconds)
            self._spent(Stage.ENCODE, embedded.encode_seconds)

    def decoded(self, decoded: DecodedMasks) -> None:
        """It got masks."""
        self._spent(Stage.QUEUE, decoded.queue_seconds)
        self._spent(Stage.MASK_DECODE, decoded.decode_seconds)

    def post_processed(self, seconds: float) -> None:
        """Its masks were made what the client asked for."""
        self._spent(Stage.POST_PROCESS, seconds)

    def prompted(self, count: int) -> None:
        """It is a `Segment` that was answered, of so many prompts."""
        self.prompts = count
        self._observer.prompts(count)

    def gaze_answered(self, seconds: float) -> None:
        """The client has taken the answer to a gaze sample, so long after the sample was received."""
        self._observer.gaze_answered(seconds)

    def refused(self, error: SamserveError) -> None:
        """It, or a message of it, failed because of this."""
        if isinstance(error, Overloaded):
            self._observer.shed(error.reason)

    def ended(self, code: str, seconds: float) -> None:
        """It ended with this gRPC status code after so long."""
        self.code, self.seconds = code, seconds
        self._observer.request(self.rpc, code, self.warmth, seconds)

    def _spent(self, stage: Stage, seconds: float) -> None:
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        self._observer.stage(stage, seconds)


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """The call that this code runs for, in its task or in one that it started.

    Raises:
        LookupError: it runs for none.
    """
    return _current.get()


def begin(call: Call) -> None:
    """From now on this task, and those that it starts, run for this call."""
    _current.set(call)
