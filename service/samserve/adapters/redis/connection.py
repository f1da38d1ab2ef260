"""Connections to Redis."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connect(url: str, max_connections: int = 8, connect_timeout_seconds: float = 1.0) -> Redis:
    """A client that connects when first used. How long its calls take is bounded by `GuardedRedis`, which calls it.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as redis-py reads it.
        max_connections: of this process. Few, since embeddings are large and more at once only take longer each.

    Raises:
        ValueError: the URL is none of these.
    """
    return Redis.from_url(
        url,
        max_connections=max_connections,
        socket_connect_timeout=connect_timeout_seconds,
        # With one, redis-py sends through `asyncio.wait_for`, which up to Python 3.11 can swallow a cancellation.
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
        # RESP 3 would only add round trips to connecting.
        protocol=2,
    )
