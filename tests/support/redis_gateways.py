"""Gateways' sides of one Redis."""

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import numpy as np

from samserve.adapters.redis import Breaker, GuardedRedis, RedisEmbeddingCache, RedisEncodeLease, connect
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest

# Far above the budgets, so that a busy machine fails no test; far below what waiting for a hung Redis would take.
PROMPT_SECONDS = 1.5


@dataclass
class RecordingObserver:
    """Counts what the caches report."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejections: list[str] = field(default_factory=list)
    breaker_changes: list[bool] = field(default_factory=list)

    def redis_call(self, operation: str, outcome: str) -> None:
        self.calls[operation, outcome] += 1

    def rejected(self, reason: str) -> None:
        self.rejections.append(reason)

    def breaker(self, is_open: bool) -> None:
        self.breaker_changes.append(is_open)

    def memory(self, entries: int, nbytes: int, max_bytes: int, evicted: int) -> None:
        raise AssertionError("there is no memory tier here")


@dataclass
class Gateway:
    """One process's adapters. The budgets are those of a patient caller, unless a test says otherwise."""

    url: str
    failures_to_open: int = 1_000_000
    cooldown_seconds: float = 0.1
    max_connections: int = 8
    cluster: bool = False
    observer: RecordingObserver = field(default_factory=RecordingObserver)

    def __post_init__(self) -> None:
        breaker = Breaker(self.observer, self.failures_to_open, self.cooldown_seconds)
        self.client = connect(self.url, self.max_connections, cluster=self.cluster)
        self.redis = GuardedRedis(self.client, breaker, self.observer, self.max_connections)

    def cache(
        self, manifest: ModelManifest, budget_seconds: float = 10, put_budget_seconds: float = 10
    ) -> RedisEmbeddingCache:
        return RedisEmbeddingCache(
            self.redis,
            manifest,
            self.observer,
            ttl_seconds=60,
            budget_seconds=budget_seconds,
            put_budget_seconds=put_budget_seconds,
        )

    def lease(self, ttl_seconds: float = 10, budget_seconds: float = 10) -> RedisEncodeLease:
        return RedisEncodeLease(self.redis, self.observer, ttl_seconds, budget_seconds)


class Gateways(AsyncExitStack):
    """Makes gateways, and closes them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def start(self, **settings: float) -> Gateway:
        gateway = Gateway(self.url, **settings)  # type: ignore[arg-type]
        self.push_async_callback(gateway.redis.aclose)
        return gateway


def manifest_of(*embedding_shape: int, fingerprint: str = "5a") -> ModelManifest:
    channels, height, width = embedding_shape
    return ModelManifest(
        model="tiny",
        fingerprint="sha256:" + fingerprint * 32,
        precision="fp16",
        image_size=64,
        embedding_shape=(channels, height, width),
        low_res_size=16,
    )


MANIFEST = manifest_of(8, 4, 4)


def key_of(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"5a5a5a5a5a5a5a5a:{number:064x}")


def embedding_of(content: int, manifest: ModelManifest = MANIFEST) -> Embedding:
    values = np.full(manifest.embedding_shape, content, np.float16)
    return Embedding(values, ImageFrame(Size(48, 30), manifest.image_size))
