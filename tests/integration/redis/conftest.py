"""Gateways' sides of one Redis."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.support.redis_gateways import Gateways
from tests.support.redis_server import RedisServer


@pytest.fixture
async def gateways(redis_server: RedisServer) -> AsyncIterator[Gateways]:
    async with Gateways(redis_server.url) as gateways:
        yield gateways


@pytest.fixture
async def raw(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """Unguarded access to what is stored."""
    async with Redis.from_url(redis_server.url, protocol=2) as client:
        yield client
