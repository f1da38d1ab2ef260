"""Connections to Redis."""

from typing import Any, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

RedisClient: TypeAlias = Redis | RedisCluster

MAX_CONNECTIONS = 8
"""Of one process. Few, since embeddings are large and more at once only take longer each."""


def check_url(url: str) -> None:
    """Check that `connect` takes a URL.

    Raises:
        ValueError: it does not; says what is expected.
    """
    try:
        parse_url(url)
    except ValueError as error:
        raise ValueError(
            f"must be redis://HOST:PORT, rediss://HOST:PORT or unix://PATH, such as redis://127.0.0.1:6379/0 ({error})"
        ) from None


def connect(
    url: str, max_connections: int = MAX_CONNECTIONS, connect_timeout_seconds: float = 1.0, *, cluster: bool = False
) -> RedisClient:
    """A client that connects when first used. How long its calls take is bounded by `GuardedRedis`, which calls it.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as redis-py reads it.
        max_connections: of this process.
        cluster: whether it is a Redis Cluster; the URL is then that of any of its nodes, and these tell of the others.

    Raises:
        ValueError: the URL is none of these.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_seconds,
        # With one, redis-py sends through `asyncio.wait_for`, which up to Python 3.11 can swallow a cancellation.
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # RESP 3 would only add round trips to connecting.
        "protocol": 2,
    }
    if not cluster:
        return Redis.from_url(url, max_connections=max_connections, **options)
    # A shard that is away is a miss on its own keys; one connection more of each, to ask where the slots are.
    return RedisCluster.from_url(url, max_connections=max_connections + 1, require_full_coverage=False, **options)
