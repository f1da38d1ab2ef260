"""The Redis tier on a real Redis: whole, wrong, full, slow, hung and dead."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from redis.asyncio import Redis

from samserve.adapters.redis import RedisEmbeddingCache
from samserve.domain.embedding import HEADER_BYTES, pack
from samserve.domain.identity import EmbeddingKey
from samserve.usecases.ports import EmbeddingSource
from tests.support.redis_gateways import (
    MANIFEST,
    PROMPT_SECONDS,
    Gateways,
    embedding_of,
    key_of,
    manifest_of,
)
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

KEY = key_of(1)
NAME = f"samserve:embedding:{KEY}"


@contextmanager
def promptly() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PROMPT_SECONDS


async def holds(cache: RedisEmbeddingCache, key: EmbeddingKey, content: int) -> bool:
    hit = await cache.get(key)
    return hit is not None and bool(np.all(hit.embedding.values == content))


async def is_gone(raw: Redis, name: str) -> bool:
    return not await raw.exists(name)


async def is_blocking_a_client(raw: Redis) -> bool:
    return bool((await raw.info("clients"))["blocked_clients"])


async def test_round_trip_between_gateways(gateways: Gateways, raw: Redis) -> None:
    writer, reader = gateways.start(), gateways.start()
    assert await reader.cache(MANIFEST).get(KEY) is None
    await writer.cache(MANIFEST).put(KEY, embedding_of(7))

    hit = await reader.cache(MANIFEST).get(KEY)
    assert hit is not None
    assert hit.source is EmbeddingSource.REDIS
    assert hit.embedding.frame == embedding_of(7).frame
    np.testing.assert_array_equal(hit.embedding.values, embedding_of(7).values)
    assert not hit.embedding.values.flags.writeable

    assert 0 < await raw.pttl(NAME) <= 60_000
    assert writer.observer.calls == {("put", "ok"): 1}
    assert reader.observer.calls == {("get", "miss"): 1, ("get", "ok"): 1}


FIELDS = {
    "magic": (0, b"SAMx"),
    "version": (4, b"\x02\x00"),
    "dtype": (6, b"\x02\x00"),
    "shape": (8, (4).to_bytes(4, "little")),
    "original_size": (20, bytes(4)),
    "fingerprint": (28, bytes(32)),
    "key": (60, bytes(32)),
    "checksum": (92, bytes(4)),
}


@pytest.mark.parametrize("reason", FIELDS)
async def test_a_wrong_header_field_is_rejected(gateways: Gateways, raw: Redis, reason: str) -> None:
    position, content = FIELDS[reason]
    packed = pack(embedding_of(7), KEY, MANIFEST)
    await assert_rejected(gateways, raw, packed[:position] + content + packed[position + len(content) :], reason)


async def test_corrupted_values_are_rejected(gateways: Gateways, raw: Redis) -> None:
    packed = bytearray(pack(embedding_of(7), KEY, MANIFEST))
    packed[HEADER_BYTES + 11] ^= 1
    await assert_rejected(gateways, raw, bytes(packed), "checksum")


@pytest.mark.parametrize("kept", [0, 10, HEADER_BYTES, -1])
async def test_a_truncated_value_is_rejected(gateways: Gateways, raw: Redis, kept: int) -> None:
    await assert_rejected(gateways, raw, pack(embedding_of(7), KEY, MANIFEST)[:kept], "length")


async def test_the_value_of_another_key_is_rejected(gateways: Gateways, raw: Redis) -> None:
    await assert_rejected(gateways, raw, pack(embedding_of(7), key_of(2), MANIFEST), "key")


async def test_the_value_of_another_model_is_rejected(gateways: Gateways, raw: Redis) -> None:
    other = manifest_of(*MANIFEST.embedding_shape, fingerprint="5b")
    await assert_rejected(gateways, raw, pack(embedding_of(7), KEY, other), "fingerprint")


async def assert_rejected(gateways: Gateways, raw: Redis, stored: bytes, reason: str) -> None:
    gateway = gateways.start(failures_to_open=1)
    cache = gateway.cache(MANIFEST)
    await raw.set(NAME, stored)
    assert await cache.get(KEY) is None
    assert gateway.observer.calls["get", "rejected"] == 1
    assert gateway.observer.rejections == [reason]
    await eventually(lambda: is_gone(raw, NAME))
    await cache.put(KEY, embedding_of(8))
    assert await holds(cache, KEY, 8)
    assert gateway.observer.breaker_changes == []


async def test_another_type_under_the_key(gateways: Gateways, raw: Redis) -> None:
    gateway = gateways.start(failures_to_open=1)
    cache = gateway.cache(MANIFEST)
    await raw.rpush(NAME, "a list")
    assert await cache.get(KEY) is None
    assert gateway.observer.calls == {("get", "error"): 1}
    await cache.put(KEY, embedding_of(8))
    assert await holds(cache, KEY, 8)


async def test_a_full_redis_loses_writes_and_still_answers(gateways: Gateways, raw: Redis) -> None:
    gateway = gateways.start(failures_to_open=1)
    cache = gateway.cache(MANIFEST)
    await cache.put(KEY, embedding_of(7))
    await raw.config_set("maxmemory-policy", "noeviction")
    await raw.config_set("maxmemory", "1")
    await cache.put(key_of(2), embedding_of(8))
    assert gateway.observer.calls["put", "error"] == 1
    assert await cache.get(key_of(2)) is None
    assert await holds(cache, KEY, 7)
    await raw.config_set("maxmemory", "0")
    await cache.put(key_of(2), embedding_of(8))
    assert await holds(cache, key_of(2), 8)


async def test_a_slow_redis_is_a_miss(gateways: Gateways, raw: Redis) -> None:
    gateway = gateways.start()
    cache = gateway.cache(MANIFEST, budget_seconds=0.05, put_budget_seconds=0.1)
    patient = gateway.cache(MANIFEST)
    await patient.put(KEY, embedding_of(7))
    await raw.client_pause(3000)
    with promptly():
        assert await cache.get(KEY) is None
        await cache.put(key_of(2), embedding_of(8))
    assert gateway.observer.calls["get", "timeout"] == 1
    assert gateway.observer.calls["put", "timeout"] == 1
    # The replies to what was given up arrive now, and are nobody's.
    assert await holds(patient, KEY, 7)
    assert gateway.observer.rejections == []


async def test_a_killed_redis_is_a_miss_until_it_is_back(gateways: Gateways, redis_server: RedisServer) -> None:
    gateway = gateways.start(failures_to_open=3)
    cache = gateway.cache(MANIFEST)
    await cache.put(KEY, embedding_of(7))
    redis_server.kill()
    with promptly():
        for _ in range(3):
            assert await cache.get(KEY) is None
        for number in range(3):
            await cache.put(key_of(number), embedding_of(number))
    assert gateway.observer.breaker_changes == [True]
    assert gateway.observer.calls["get", "error"] == 3
    redis_server.restart()
    await assert_recovers(cache)
    assert gateway.observer.breaker_changes == [True, False]


async def test_the_breaker_closes_without_traffic(gateways: Gateways, redis_server: RedisServer) -> None:
    gateway = gateways.start(failures_to_open=3)
    cache = gateway.cache(MANIFEST)
    redis_server.kill()
    for _ in range(3):
        assert await cache.get(KEY) is None
    assert gateway.observer.breaker_changes == [True]
    redis_server.restart()

    async def is_closed() -> bool:
        return gateway.observer.breaker_changes == [True, False]

    await eventually(is_closed)
    assert gateway.observer.calls["get", "skipped"] == 0


async def test_a_hung_redis_is_a_miss_until_it_goes_on(gateways: Gateways, redis_server: RedisServer) -> None:
    gateway = gateways.start(failures_to_open=3)
    cache = gateway.cache(MANIFEST, budget_seconds=0.05)
    await gateway.cache(MANIFEST).put(KEY, embedding_of(7))
    redis_server.pause()
    with promptly():
        for _ in range(3):
            assert await cache.get(KEY) is None
    assert gateway.observer.breaker_changes == [True]
    assert gateway.observer.calls["get", "timeout"] == 3
    with promptly():
        for _ in range(100):
            assert await cache.get(KEY) is None
    assert gateway.observer.calls["get", "skipped"] > 0
    redis_server.resume()
    await assert_recovers(cache)
    assert gateway.observer.breaker_changes == [True, False]


async def assert_recovers(cache: RedisEmbeddingCache) -> None:
    async def puts_and_gets() -> bool:
        await cache.put(KEY, embedding_of(9))
        return await holds(cache, KEY, 9)

    await eventually(puts_and_gets)


async def test_puts_to_a_hung_redis_do_not_pile_up(gateways: Gateways, redis_server: RedisServer) -> None:
    gateway = gateways.start()
    cache = gateway.cache(MANIFEST, put_budget_seconds=0.2)
    await gateway.cache(MANIFEST).put(KEY, embedding_of(7))
    redis_server.pause()
    with promptly():
        await asyncio.gather(*(cache.put(key_of(number), embedding_of(number)) for number in range(50)))
    assert gateway.observer.calls == {("put", "ok"): 1, ("put", "timeout"): 4, ("put", "skipped"): 46}


async def test_given_up_puts_hold_no_more_sockets_than_there_are_connections(
    gateways: Gateways, redis_server: RedisServer
) -> None:
    # More than the kernel's socket buffers take, so that the rest stays with us.
    manifest = manifest_of(64, 256, 512)
    gateway = gateways.start(max_connections=2)
    cache = gateway.cache(manifest, put_budget_seconds=0.05)
    await gateway.redis.call("put", 10, lambda client: client.ping())
    redis_server.pause()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        await cache.put(key_of(number), embedding_of(number, manifest))
    assert gateway.observer.calls == {("put", "timeout"): 10}
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    redis_server.kill()


async def test_waiting_for_a_connection_does_not_open_the_breaker(gateways: Gateways, raw: Redis) -> None:
    gateway = gateways.start(failures_to_open=1, max_connections=1)
    occupied = asyncio.create_task(gateway.redis.call("get", 30, lambda client: client.blpop(["nothing"], timeout=30)))
    await eventually(lambda: is_blocking_a_client(raw))
    assert await gateway.cache(MANIFEST, budget_seconds=0.05).get(KEY) is None
    assert gateway.observer.calls == {("get", "timeout"): 1}
    assert gateway.observer.breaker_changes == []
    await raw.rpush("nothing", "something")
    await occupied
