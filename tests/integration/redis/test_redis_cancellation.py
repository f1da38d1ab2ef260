"""Callers who go away in the middle of a call: nobody else gets their reply, and no connection is lost."""

import asyncio

import numpy as np
import pytest

from tests.support.redis_gateways import MANIFEST, Gateways, embedding_of, key_of, manifest_of
from tests.support.redis_server import RedisServer
from tests.support.waiting import settled

# 256 KiB: a reply takes several reads, so that cancellation also strikes between them.
LARGE = manifest_of(32, 64, 64)
KEYS = 8
CONNECTIONS = 3


async def test_the_reply_to_a_cancelled_call_reaches_no_other_caller(gateways: Gateways) -> None:
    gateway = gateways.start(max_connections=CONNECTIONS)
    cache = gateway.cache(LARGE)
    for number in range(KEYS):
        await cache.put(key_of(number), embedding_of(number, LARGE))
    cancelled = completed = 0

    async def get(number: int) -> None:
        hit = await cache.get(key_of(number))
        assert hit is not None
        assert np.all(hit.embedding.values == number)

    # Cancelled after each of the steps that the event loop takes until the replies have been read.
    for steps in range(150):
        tasks = [asyncio.create_task(get((steps + number) % KEYS)) for number in range(2 * CONNECTIONS)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks[steps % 2 :: 2]:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, asyncio.CancelledError):
                cancelled += 1
            else:
                assert outcome is None
                completed += 1

    assert completed >= 150 * CONNECTIONS
    assert cancelled >= 10 * CONNECTIONS
    # Not even the checks inside the value had to step in.
    assert gateway.observer.rejections == []
    assert set(gateway.observer.calls) == {("put", "ok"), ("get", "ok")}
    await asyncio.gather(*(get(number) for number in range(KEYS)))


async def test_cancellation_reaches_the_caller_at_once(gateways: Gateways, redis_server: RedisServer) -> None:
    gateway = gateways.start(failures_to_open=1)
    cache = gateway.cache(MANIFEST)
    await cache.put(key_of(1), embedding_of(1))
    redis_server.pause()
    for work in (cache.get(key_of(1)), cache.put(key_of(1), embedding_of(1))):
        task = asyncio.create_task(work)
        await settled()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # A caller who went away says nothing about Redis.
    assert gateway.observer.breaker_changes == []
    assert gateway.observer.calls == {("put", "ok"): 1}
    redis_server.resume()
    hit = await cache.get(key_of(1))
    assert hit is not None
