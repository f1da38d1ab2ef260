"""Calls, and where their time goes."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from samserve.api import RPCS
from samserve.domain.errors import SHED_REASONS
from samserve.usecases.ports import GATEWAY_CODES, EmbeddingSource, Stage, Warmth

_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_SECONDS = (0.001, *_LATENCY_SECONDS)
_STALENESS_SECONDS = (0.004, 0.008, 0.016, 0.033, 0.05, 0.1, 0.25, 0.5, 1.0)
_PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class RequestMetrics:
    """Implements `RequestObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "samserve_requests",
            "Calls that ended, by rpc and gRPC status code; those that gRPC itself refuses do not come so far",
            ("rpc", "code"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "samserve_request_seconds",
            "Duration of calls from the message read to the status, by what their embedding cost: warm, it was "
            "cached; cold, it was encoded, by this call or by one that this call waited for; none, none was needed "
            "or there never was one. A stream is one call.",
            ("rpc", "embedding"),
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "samserve_stage_seconds",
            "Time in a stage, each time that a request was in it. Queue is the wait for a free thread of ONNX Runtime; "
            "Triton's queue is part of encode and mask_decode.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._embeddings = Counter(
            "samserve_embeddings",
            "Embeddings got, by where from; those of single-flight followers are not among them",
            ("source",),
            registry=registry,
        )
        self._followers = Counter(
            "samserve_single_flight_followers",
            "Embeddings got by waiting for what another caller of this gateway had begun",
            registry=registry,
        )
        self._avoided = Counter(
            "samserve_encodes_avoided",
            "Embeddings got without an encode of their own: found in memory or Redis, or waited for as a follower",
            registry=registry,
        )
        self._prompts = Histogram(
            "samserve_prompts_per_request",
            "Prompts of a Segment that was answered",
            buckets=_PROMPTS,
            registry=registry,
        )
        self._shed = Counter(
            "samserve_shed",
            "Calls, and messages of streams, refused for load: a limit of the gateway, a deadline that those in flight "
            "will outlast, edits waiting for a session's image, or a queue of Triton",
            ("reason",),
            registry=registry,
        )
        self._staleness = Histogram(
            "samserve_gaze_staleness_seconds",
            "From receiving a gaze sample to its answer taken by the client",
            buckets=_STALENESS_SECONDS,
            registry=registry,
        )
        self._seed()

    def _seed(self) -> None:
        for rpc in RPCS:
            for code in GATEWAY_CODES:
                self._requests.labels(rpc, code)
            for warmth in Warmth:
                self._request_seconds.labels(rpc, warmth.value)
        for stage in Stage:
            self._stage_seconds.labels(stage.value)
        for source in EmbeddingSource:
            if source is not EmbeddingSource.COALESCED:
                self._embeddings.labels(source.value)
        for reason in SHED_REASONS:
            self._shed.labels(reason)

    def request(self, rpc: str, code: str, warmth: Warmth, seconds: float) -> None:
        """See `RequestObserver`."""
        self._requests.labels(rpc, code).inc()
        self._request_seconds.labels(rpc, warmth.value).observe(seconds)

    def embedded(self, source: EmbeddingSource) -> None:
        """See `RequestObserver`."""
        if source is EmbeddingSource.COALESCED:
            self._followers.inc()
        else:
            self._embeddings.labels(source.value).inc()
        if source is not EmbeddingSource.ENCODED:
            self._avoided.inc()

    def stage(self, stage: Stage, seconds: float) -> None:
        """See `RequestObserver`."""
        self._stage_seconds.labels(stage.value).observe(seconds)

    def prompts(self, count: int) -> None:
        """See `RequestObserver`."""
        self._prompts.observe(count)

    def shed(self, reason: str) -> None:
        """See `RequestObserver`."""
        self._shed.labels(reason).inc()

    def gaze_answered(self, seconds: float) -> None:
        """See `RequestObserver`."""
        self._staleness.observe(seconds)
