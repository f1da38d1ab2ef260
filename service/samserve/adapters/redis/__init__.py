"""What the gateways share through Redis: embeddings, and leases on the encoding of an image.

Redis is an optimisation here. Down, slow, full or wrong, it costs a bounded wait and then encodes; it fails no request.
"""

from samserve.adapters.redis.breaker import Breaker
from samserve.adapters.redis.cache import RedisEmbeddingCache
from samserve.adapters.redis.connection import connect
from samserve.adapters.redis.guard import GuardedRedis
from samserve.adapters.redis.lease import RedisEncodeLease

__all__ = ["Breaker", "GuardedRedis", "RedisEmbeddingCache", "RedisEncodeLease", "connect"]
