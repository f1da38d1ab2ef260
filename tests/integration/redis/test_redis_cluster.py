"""Redis Cluster, its shards started by the script that starts them on Kubernetes."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from samserve.adapters.redis.cache import KEY_PREFIX
from tests.support.redis_gateways import MANIFEST, Gateway, Gateways, embedding_of, key_of
from tests.support.waiting import eventually

SHARD = Path(__file__).parents[3] / "k8s/components/redis-cluster/shard.sh"
PASSWORD = "a-password"
SHARDS = 3
SLOTS = 16384
KEYS = 30


class Cluster:
    """Shards on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = _free_ports(SHARDS)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Of the first shard, which tells of the others."""
        return f"redis://:{PASSWORD}@localhost:{self.ports[0]}/0"

    def start(self, ordinal: int) -> None:
        """Start a shard, with what it knew before if it ran before."""
        folder = self._folder / str(ordinal)
        folder.mkdir(exist_ok=True)
        config = self._folder / "redis.conf"
        config.write_text('bind 127.0.0.1\nsave ""\ncluster-node-timeout 2000\n')
        with (folder / "log").open("ab") as log:
            self._processes[ordinal] = subprocess.Popen(
                [str(SHARD), str(folder), str(config)],
                env={
                    **os.environ,
                    "PEERS": " ".join(f"localhost:{port}" for port in self.ports),
                    "ORDINAL": str(ordinal),
                    "REDIS_PASSWORD": PASSWORD,
                    "REDIS_MAXMEMORY": "64mb",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, ordinal: int) -> None:
        """End a shard at once, and its script."""
        process = self._processes.pop(ordinal)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pause(self, ordinal: int) -> None:
        """Make a shard hang: connections stay, and nothing answers."""
        os.killpg(self._processes[ordinal].pid, signal.SIGSTOP)

    def resume(self, ordinal: int) -> None:
        """Make it go on."""
        os.killpg(self._processes[ordinal].pid, signal.SIGCONT)

    def kill_all(self) -> None:
        """End what runs."""
        for ordinal in list(self._processes):
            self.kill(ordinal)

    async def agreed(self) -> bool:
        """Whether every shard knows who has every slot, and that all are there."""
        for port in self.ports:
            with contextlib.suppress(RedisError, OSError):
                async with Redis(port=port, password=PASSWORD, protocol=2) as client:
                    info = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
                    if (info["cluster_state"], info["cluster_slots_ok"]) == ("ok", str(SLOTS)):
                        continue
            return False
        return True


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    if shutil.which("redis-server") is None:
        pytest.fail("redis-server is missing; install it: apt-get install redis-server", pytrace=False)
    cluster = Cluster(tmp_path)
    try:
        for ordinal in range(SHARDS):
            cluster.start(ordinal)
        await eventually(cluster.agreed)
        yield cluster
    finally:
        cluster.kill_all()


@pytest.fixture
async def gateway(cluster: Cluster) -> AsyncIterator[Gateway]:
    async with Gateways(cluster.url) as gateways:
        yield gateways.start(cluster=True)


def shard_of(number: int) -> int:
    """Which shard an embedding's key belongs to."""
    return key_slot((KEY_PREFIX + key_of(number)).encode()) * SHARDS // SLOTS


async def test_embeddings_are_spread_over_the_shards_and_found_again(cluster: Cluster, gateway: Gateway) -> None:
    cache = gateway.cache(MANIFEST)
    for number in range(KEYS):
        await cache.put(key_of(number), embedding_of(number))
    for number in range(KEYS):
        assert await cache.get(key_of(number)) is not None
    assert gateway.observer.calls == {("put", "ok"): KEYS, ("get", "ok"): KEYS}
    for port in cluster.ports:
        async with Redis(port=port, password=PASSWORD, protocol=2) as client:
            assert 0 < await client.dbsize() < KEYS


async def test_a_lease_is_granted_to_one(gateway: Gateway) -> None:
    lease = gateway.lease()
    for number in range(SHARDS * 2):
        async with lease.try_acquire(key_of(number)) as granted, lease.try_acquire(key_of(number)) as again:
            assert granted
            assert not again
        async with lease.try_acquire(key_of(number)) as granted:
            assert granted


async def test_a_shard_that_is_away_costs_its_own_embeddings_and_comes_back_empty(
    cluster: Cluster, gateway: Gateway
) -> None:
    cache = gateway.cache(MANIFEST)
    for number in range(KEYS):
        await cache.put(key_of(number), embedding_of(number))
    lost = shard_of(0)
    cluster.kill(lost)

    async def only_its_own_are_lost() -> bool:
        found = [await cache.get(key_of(number)) is not None for number in range(KEYS)]
        return found == [shard_of(number) != lost for number in range(KEYS)]

    await eventually(only_its_own_are_lost)
    cluster.start(lost)

    async def holds_them_again() -> bool:
        for number in range(KEYS):
            await cache.put(key_of(number), embedding_of(number))
        return None not in [await cache.get(key_of(number)) for number in range(KEYS)]

    await eventually(holds_them_again)


async def test_a_hung_shard_costs_no_more_than_the_budget(cluster: Cluster, gateway: Gateway) -> None:
    cache = gateway.cache(MANIFEST, budget_seconds=0.5)
    for number in range(KEYS):
        await cache.put(key_of(number), embedding_of(number))
    hung = shard_of(0)
    cluster.pause(hung)
    started = asyncio.get_running_loop().time()
    assert await cache.get(key_of(0)) is None
    assert asyncio.get_running_loop().time() - started < 5
    cluster.resume(hung)


def _free_ports(count: int) -> list[int]:
    """Ports whose bus port, 10000 above, is free too."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port - 10000))
                ports.append(port - 10000)
    return ports
