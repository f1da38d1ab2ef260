"""Metrics of calls and their timings."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from samserve.api import RPCS
from samserve.domain.errors import SHED_REASONS
from samserve.usecases.observers import GATEWAY_CODES, Warmth
from samserve.usecases.ports import EmbeddingSource
from samserve.usecases.timings import Stage

_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_SECONDS = (0.001, *_LATENCY_SECONDS)
_STALENESS_SECONDS = (0.004, 0.008, 0.016, 0.033, 0.05, 0.1, 0.25, 0.5, 1.0)
_PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class RequestMetrics:
    """Implements `RequestObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "samserve_requests",
            "Completed calls, by rpc and gRPC status code; calls that the gRPC library rejects itself are not counted",
            ("rpc", "code"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "samserve_request_seconds",
            "Call duration from the received request to the status. embedding is warm if the embedding was cached, "
            "cold if this call encoded it or waited for another call's encode, none if the call needed or got no "
            "embedding. A stream is one call.",
            ("rpc", "embedding"),
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "samserve_stage_seconds",
            "Time spent in a stage, observed once per pass. queue is the wait for a free ONNX Runtime thread; "
            "time in Triton's queue is part of encode and mask_decode. rank is comparing masks with text prompts.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._embeddings = Counter(
            "samserve_embeddings",
            "Embeddings served, by source; single-flight followers are counted separately",
            ("source",),
            registry=registry,
        )
        self._followers = Counter(
            "samserve_single_flight_followers",
            "Embeddings served by waiting for another call of this gateway to obtain the same embedding",
            registry=registry,
        )
        self._avoided = Counter(
            "samserve_encodes_avoided",
            "Embeddings served without running an encode: cached in memory or Redis, or shared by single flight",
            registry=registry,
        )
        self._prompts = Histogram(
            "samserve_prompts_per_request",
            "Prompts per successful Segment call",
            buckets=_PROMPTS,
            registry=registry,
        )
        self._shed = Counter(
            "samserve_shed",
            "Calls and stream messages shed for load, by reason: a limit of the gateway (requests, encodes, "
            "generations, streams), a deadline too short for the requests in flight, too many edits waiting for a "
            "session's image, or a full Triton queue",
            ("reason",),
            registry=registry,
        )
        self._staleness = Histogram(
            "samserve_gaze_staleness_seconds",
            "Time from receiving a gaze sample until the client has read its answer",
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
        self._requests.labels(rpc, code).inc()
        self._request_seconds.labels(rpc, warmth.value).observe(seconds)

    def embedded(self, source: EmbeddingSource) -> None:
        if source is EmbeddingSource.COALESCED:
            self._followers.inc()
        else:
            self._embeddings.labels(source.value).inc()
        if source is not EmbeddingSource.ENCODED:
            self._avoided.inc()

    def stage(self, stage: Stage, seconds: float) -> None:
        self._stage_seconds.labels(stage.value).observe(seconds)

    def prompts(self, count: int) -> None:
        self._prompts.observe(count)

    def shed(self, reason: str) -> None:
        self._shed.labels(reason).inc()

    def gaze_answered(self, seconds: float) -> None:
        self._staleness.observe(seconds)
