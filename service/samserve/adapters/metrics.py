"""What is counted, for Prometheus. Every label set is bounded, and seeded, so that rates exist from the start."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from samserve.domain.embedding import REJECTION_REASONS
from samserve.ports import GAZE_FRAME_OUTCOMES, GAZE_SAMPLE_OUTCOMES, EmbeddingSource

_REDIS_OUTCOMES = {
    "get": ("ok", "miss", "rejected", "timeout", "error", "skipped"),
    "put": ("ok", "timeout", "error", "skipped"),
    "lease": ("ok", "busy", "timeout", "error", "skipped"),
    "delete": ("ok", "timeout", "error", "skipped"),
}
_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Implements `CacheObserver`, `RequestObserver` and `GazeObserver`; one per gateway, with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "samserve_requests", "Calls ended, by rpc and gRPC status code", ("rpc", "code"), registry=self.registry
        )
        self._request_seconds = Histogram(
            "samserve_request_seconds",
            "Duration of calls as the gateway sees it",
            ("rpc",),
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self._embeddings = Counter(
            "samserve_embeddings", "Requests by where their embedding came from", ("source",), registry=self.registry
        )
        self._redis_calls = Counter(
            "samserve_redis_calls", "Uses of Redis by outcome", ("operation", "outcome"), registry=self.registry
        )
        self._rejected = Counter(
            "samserve_cache_rejected", "Stored embeddings not served, by reason", ("reason",), registry=self.registry
        )
        self._breaker_open = Gauge("samserve_redis_breaker_open", "1 while Redis is not asked", registry=self.registry)
        self._memory_entries = Gauge(
            "samserve_memory_cache_entries", "Embeddings in the memory tier", registry=self.registry
        )
        self._memory_bytes = Gauge("samserve_memory_cache_bytes", "Bytes in the memory tier", registry=self.registry)
        self._memory_evictions = Counter(
            "samserve_memory_cache_evictions", "Embeddings dropped from the memory tier", registry=self.registry
        )
        self._streams = Gauge("samserve_streams", "Bidirectional streams open", registry=self.registry)
        self._gaze_samples = Counter(
            "samserve_gaze_samples", "Gaze samples by what became of them", ("outcome",), registry=self.registry
        )
        self._gaze_frames = Counter(
            "samserve_gaze_frames",
            "Frames of gaze streams by event",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in GAZE_SAMPLE_OUTCOMES:
            self._gaze_samples.labels(outcome)
        for outcome in GAZE_FRAME_OUTCOMES:
            self._gaze_frames.labels(outcome)
        for source in EmbeddingSource:
            self._embeddings.labels(source.value)
        for operation, outcomes in _REDIS_OUTCOMES.items():
            for outcome in outcomes:
                self._redis_calls.labels(operation, outcome)
        for reason in REJECTION_REASONS:
            self._rejected.labels(reason)

    def request(self, rpc: str, code: str, seconds: float) -> None:
        """See `RequestObserver`."""
        self._requests.labels(rpc, code).inc()
        self._request_seconds.labels(rpc).observe(seconds)

    def embedded(self, source: EmbeddingSource) -> None:
        """See `RequestObserver`."""
        self._embeddings.labels(source.value).inc()

    def streams(self, count: int) -> None:
        """See `RequestObserver`."""
        self._streams.set(count)

    def gaze_sample(self, outcome: str) -> None:
        """See `GazeObserver`."""
        self._gaze_samples.labels(outcome).inc()

    def gaze_frame(self, outcome: str) -> None:
        """See `GazeObserver`."""
        self._gaze_frames.labels(outcome).inc()

    def redis_call(self, operation: str, outcome: str) -> None:
        """See `CacheObserver`."""
        self._redis_calls.labels(operation, outcome).inc()

    def rejected(self, reason: str) -> None:
        """See `CacheObserver`."""
        self._rejected.labels(reason).inc()

    def breaker(self, is_open: bool) -> None:
        """See `CacheObserver`."""
        self._breaker_open.set(is_open)

    def memory(self, entries: int, nbytes: int, evicted: int) -> None:
        """See `CacheObserver`."""
        self._memory_entries.set(entries)
        self._memory_bytes.set(nbytes)
        self._memory_evictions.inc(evicted)
