"""The encode lease between gateways on a real Redis."""

import asyncio
import sys
from contextlib import AsyncExitStack

from redis.asyncio import Redis

from samserve.adapters.cache.local_lease import LocalEncodeLease
from samserve.adapters.redis import RedisEncodeLease
from tests.support.redis_gateways import PROMPT_SECONDS, Gateways, key_of
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually, settled

KEY = key_of(1)
NAME = f"samserve:lease:{KEY}"


async def is_granted(lease: RedisEncodeLease) -> bool:
    async with lease.try_acquire(KEY) as granted:
        return granted


async def test_one_gateway_at_a_time_holds_the_lease(gateways: Gateways, raw: Redis) -> None:
    first, second = gateways.start(), gateways.start()
    async with first.lease().try_acquire(KEY) as granted:
        assert granted
        assert not await is_granted(second.lease())
        assert not await is_granted(first.lease())
        async with second.lease().try_acquire(key_of(2)) as other_image:
            assert other_image
        # Neither of those who were refused took it away.
        assert 0 < await raw.pttl(NAME) <= 10_000
    assert not await raw.exists(NAME)
    assert await is_granted(second.lease())
    assert second.observer.calls == {("lease", "busy"): 1, ("lease", "ok"): 2}


async def test_one_of_many_concurrent_callers_is_granted_the_lease(gateways: Gateways) -> None:
    leases = [gateways.start().lease() for _ in range(5)]
    async with AsyncExitStack() as held:
        answers = await asyncio.gather(*(held.enter_async_context(lease.try_acquire(KEY)) for lease in leases))
    assert sorted(answers) == [False, False, False, False, True]


async def test_the_lease_is_released_when_the_holder_fails_or_is_cancelled(gateways: Gateways, raw: Redis) -> None:
    lease = gateways.start().lease()
    entered = asyncio.Event()

    async def encode() -> None:
        async with lease.try_acquire(KEY):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(encode())
    await entered.wait()
    assert await raw.exists(NAME)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert not await raw.exists(NAME)


async def test_cancelled_while_acquiring_leaves_no_lease(gateways: Gateways, raw: Redis) -> None:
    gateway = gateways.start()
    other = gateways.start()
    cancelled = 0
    for steps in range(40):
        task = asyncio.create_task(is_granted(gateway.lease()))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        cancelled += task.cancelled()
        assert await is_granted(other.lease())
    assert cancelled
    assert not await raw.exists(NAME)


async def test_the_lease_is_renewed_while_it_is_held(gateways: Gateways, raw: Redis) -> None:
    holder, other = gateways.start(), gateways.start()
    left_milliseconds, renewals = 0, -1

    async def renewed_twice() -> bool:
        nonlocal left_milliseconds, renewals
        left = await raw.pttl(NAME)
        assert left > 0, "the lease has run out"
        renewals += left > left_milliseconds
        left_milliseconds = left
        return renewals == 2

    async with holder.lease(ttl_seconds=1.2).try_acquire(KEY) as granted:
        assert granted
        await eventually(renewed_twice)
        assert not await is_granted(other.lease())
    assert await is_granted(other.lease())


HOLDER = """
import asyncio
import sys
from samserve.adapters.redis import Breaker, GuardedRedis, RedisEncodeLease, connect
from samserve.domain.identity import EmbeddingKey
from tests.support.redis_gateways import RecordingObserver

async def main():
    observer = RecordingObserver()
    redis = GuardedRedis(connect(sys.argv[1]), Breaker(observer), observer)
    lease = RedisEncodeLease(redis, observer, ttl_seconds=1.5, budget_seconds=10)
    async with lease.try_acquire(EmbeddingKey(sys.argv[2])) as granted:
        print(granted, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_lease_of_a_dead_holder_expires(gateways: Gateways, redis_server: RedisServer) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, redis_server.url, KEY, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"True\n"
    lease = gateways.start().lease()
    assert not await is_granted(lease)
    process.kill()
    await process.communicate()
    await eventually(lambda: is_granted(lease))


async def test_a_former_holder_leaves_the_lease_of_the_next_alone(gateways: Gateways, raw: Redis) -> None:
    former, other = gateways.start(), gateways.start()
    async with former.lease(ttl_seconds=0.3).try_acquire(KEY) as granted:
        assert granted
        # As if it had hung for longer than the lease lasts, and another gateway had taken over.
        await raw.set(NAME, "another's token", px=60_000)
        before = await evaluations(raw)
        # The holder tries to renew what is not its own any more, and finds that out.
        await eventually(lambda: evaluated(raw, before + 1))
        assert await raw.pttl(NAME) > 50_000
    assert await raw.get(NAME) == b"another's token"
    assert not await is_granted(other.lease())


async def evaluations(raw: Redis) -> int:
    """How many scripts Redis has run, of which a renewal is one."""
    statistics = await raw.info("commandstats")
    return int(statistics.get("cmdstat_eval", {}).get("calls", 0))


async def evaluated(raw: Redis, count: int) -> bool:
    return await evaluations(raw) >= count


async def test_the_lease_is_granted_to_all_without_redis(gateways: Gateways, redis_server: RedisServer) -> None:
    first, second = gateways.start(), gateways.start()
    redis_server.kill()
    async with first.lease().try_acquire(KEY) as granted, second.lease().try_acquire(KEY) as also_granted:
        assert granted
        assert also_granted
    assert first.observer.calls["lease", "error"] > 0
    # Nobody goes on trying to extend what was given up.
    await settled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_lease_is_granted_while_redis_hangs_and_released_afterwards(
    gateways: Gateways, redis_server: RedisServer
) -> None:
    gateway, other = gateways.start(), gateways.start()
    assert await is_granted(gateway.lease())
    redis_server.pause()
    started = asyncio.get_running_loop().time()
    async with gateway.lease(budget_seconds=0.05).try_acquire(KEY) as granted:
        assert granted
        assert asyncio.get_running_loop().time() - started < PROMPT_SECONDS
        assert gateway.observer.calls["lease", "timeout"] == 1
        redis_server.resume()
    await eventually(lambda: is_granted(other.lease()))


async def test_a_redis_restart_during_a_lease_blocks_no_later_lease(
    gateways: Gateways, redis_server: RedisServer
) -> None:
    holder, other = gateways.start(), gateways.start()
    async with holder.lease(ttl_seconds=0.3).try_acquire(KEY) as granted:
        assert granted
        redis_server.kill()
        # A renewal that fails.
        await eventually(lambda: holder.observer.calls["lease", "error"] > 0)
        redis_server.restart()
    await eventually(lambda: is_granted(other.lease()))


async def test_the_local_lease_is_always_granted() -> None:
    lease = LocalEncodeLease()
    async with lease.try_acquire(KEY) as granted, lease.try_acquire(KEY) as again:
        assert granted
        assert again
