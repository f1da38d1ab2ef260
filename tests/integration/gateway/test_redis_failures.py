"""Redis killed, hung, slow or lying during a run: not one request fails, and what happened is counted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, Served, photo, serving
from tests.support.redis_server import RedisServer

ROUNDS = 12


async def run(served: Served, redis: RedisServer, fail: Callable[[], Awaitable[None]]) -> None:
    """Ask for four images again and again and for a new one each time, and let Redis fail after the first four."""
    for seed in range(ROUNDS):
        if seed == 4:
            await fail()
        known, new = photo(seed % 4), photo(1000 + seed)
        answers = await asyncio.gather(
            *(
                served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=data), prompts=[PNG_CLICK]))
                for data in (known, new)
            )
        )
        assert all(len(answer.results) == 1 for answer in answers)


@pytest.fixture
async def served(redis_server: RedisServer) -> AsyncIterator[Served]:
    # Without a memory tier every request depends on what Redis does.
    async with serving(redis_url=redis_server.url, memory_cache_bytes=0, redis_budget_seconds=0.1) as served:
        yield served


def outcomes(served: Served, *names: str) -> float:
    return sum(
        served.counted("samserve_redis_calls_total", operation=operation, outcome=outcome)
        for operation in ("get", "put", "lease")
        for outcome in names
    )


async def test_a_killed_redis_fails_no_request(served: Served, redis_server: RedisServer) -> None:
    async def kill() -> None:
        redis_server.kill()

    await run(served, redis_server, kill)
    assert outcomes(served, "error") > 0
    assert outcomes(served, "skipped") > 0
    assert served.counted("samserve_redis_breaker_open") == 1


async def test_a_hung_redis_fails_no_request_and_is_used_again_afterwards(
    served: Served, redis_server: RedisServer
) -> None:
    async def hang() -> None:
        redis_server.pause()

    await run(served, redis_server, hang)
    assert outcomes(served, "timeout") > 0
    assert served.counted("samserve_redis_breaker_open") == 1
    redis_server.resume()
    async with asyncio.timeout(60):
        while served.counted("samserve_redis_breaker_open"):
            await served.stub.Segment(pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK]))
            await asyncio.sleep(0.2)


async def test_a_slow_redis_fails_no_request(served: Served, redis_server: RedisServer) -> None:
    async def slow() -> None:
        async with Redis.from_url(redis_server.url) as client:
            await client.client_pause(4000)

    await run(served, redis_server, slow)
    assert outcomes(served, "timeout") > 0


async def test_corrupted_values_are_counted_and_fail_no_request(served: Served, redis_server: RedisServer) -> None:
    async def corrupt() -> None:
        async with Redis.from_url(redis_server.url) as client:
            names = [name async for name in client.scan_iter("samserve:embedding:*")]
            assert names
            for index, name in enumerate(names):
                stored = await client.get(name)
                assert isinstance(stored, bytes)
                value = bytearray(stored)
                value[-1 - index] ^= 0xFF
                await client.set(name, bytes(value) if index % 2 else bytes(value[:100]))

    await run(served, redis_server, corrupt)
    rejected = sum(served.counted("samserve_cache_rejected_total", reason=reason) for reason in ("checksum", "length"))
    assert rejected > 0
    assert outcomes(served, "rejected") == rejected


async def test_requests_succeed_without_redis_from_the_start() -> None:
    async with serving(redis_url="redis://127.0.0.1:1/0", memory_cache_bytes=0) as served:
        request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
        assert not (await served.stub.Segment(request)).cached
        assert outcomes(served, "error", "timeout") > 0
