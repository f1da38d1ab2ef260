"""State that gateways share in Redis: embeddings, and leases on the encoding of an image.

Redis is only an optimisation. If it is down, slow, full or returns wrong data, the gateway waits for a bounded time and
encodes the image; no request fails because of it.
"""

from samserve.adapters.redis.breaker import Breaker
from samserve.adapters.redis.cache import RedisEmbeddingCache
from samserve.adapters.redis.connection import connect
from samserve.adapters.redis.guard import GuardedRedis
from samserve.adapters.redis.lease import RedisEncodeLease

__all__ = ["Breaker", "GuardedRedis", "RedisEmbeddingCache", "RedisEncodeLease", "connect"]
