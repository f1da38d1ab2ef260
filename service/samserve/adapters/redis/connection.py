"""Connections to Redis."""

from typing import Any, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

RedisClient: TypeAlias = Redis | RedisCluster

MAX_CONNECTIONS = 8
"""Connections of one process. Few are enough, because embeddings are large and more concurrent transfers only take
longer."""


def check_url(url: str) -> None:
    """Check that `connect` accepts a URL.

    Raises:
        ValueError: it does not; the message says what is expected.
    """
    try:
        parse_url(url)
    except ValueError:
        # The parser's own message can quote a part of the password.
        raise ValueError(
            "must be redis://HOST:PORT, rediss://HOST:PORT or unix://PATH, such as redis://127.0.0.1:6379/0; "
            "percent-encode other characters than letters and digits in a password"
        ) from None


def connect(
    url: str, max_connections: int = MAX_CONNECTIONS, connect_timeout_seconds: float = 1.0, *, cluster: bool = False
) -> RedisClient:
    """Create a client that connects on first use. `GuardedRedis`, which calls it, limits the duration of calls.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as redis-py reads it.
        max_connections: limit for this process.
        cluster: the URL is that of any node of a Redis Cluster; the client discovers the others from it.

    Raises:
        ValueError: the URL is none of these.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_seconds,
        # With a timeout, redis-py sends through `asyncio.wait_for`, which can swallow a cancellation up to Python 3.11.
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # RESP 3 would only add round trips to connecting.
        "protocol": 2,
    }
    if not cluster:
        return Redis.from_url(url, max_connections=max_connections, **options)
    # If a shard is down, its keys are misses. One more connection per shard, for queries of the slot assignment.
    return RedisCluster.from_url(url, max_connections=max_connections + 1, require_full_coverage=False, **options)
