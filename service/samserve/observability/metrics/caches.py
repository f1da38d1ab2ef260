"""Metrics of the memory tier and of Redis."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from samserve.domain.embedding import REJECTION_REASONS

_REDIS_OUTCOMES = {
    "get": ("ok", "miss", "rejected", "timeout", "error", "skipped"),
    "put": ("ok", "timeout", "error", "skipped"),
    "lease": ("ok", "busy", "timeout", "error", "skipped"),
    "delete": ("ok", "timeout", "error", "skipped"),
    "ping": ("ok", "timeout", "error", "skipped"),
}


class CacheMetrics:
    """Implements `CacheObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._redis_calls = Counter(
            "samserve_redis_calls",
            "Redis operations, by operation and outcome",
            ("operation", "outcome"),
            registry=registry,
        )
        self._rejected = Counter(
            "samserve_cache_rejected",
            "Stored embeddings that failed validation and were treated as misses, by reason",
            ("reason",),
            registry=registry,
        )
        self._breaker_open = Gauge(
            "samserve_redis_breaker_open", "1 while the circuit breaker skips Redis", registry=registry
        )
        self._memory_entries = Gauge(
            "samserve_memory_cache_entries", "Embeddings in the memory tier of the cache", registry=registry
        )
        self._memory_bytes = Gauge(
            "samserve_memory_cache_bytes", "Bytes used by the memory tier of the cache", registry=registry
        )
        self._memory_max_bytes = Gauge(
            "samserve_memory_cache_max_bytes", "Capacity of the memory tier of the cache, in bytes", registry=registry
        )
        self._memory_evictions = Counter(
            "samserve_memory_cache_evictions", "Embeddings evicted from the memory tier of the cache", registry=registry
        )
        for operation, outcomes in _REDIS_OUTCOMES.items():
            for outcome in outcomes:
                self._redis_calls.labels(operation, outcome)
        for reason in REJECTION_REASONS:
            self._rejected.labels(reason)

    def redis_call(self, operation: str, outcome: str) -> None:
        self._redis_calls.labels(operation, outcome).inc()

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def breaker(self, is_open: bool) -> None:
        self._breaker_open.set(is_open)

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        self._memory_entries.set(entries)
        self._memory_bytes.set(nbytes)
        self._memory_max_bytes.set(max_bytes)
        self._memory_evictions.inc(evicted)
