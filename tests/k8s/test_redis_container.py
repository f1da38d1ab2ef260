"""The Redis container's command: its configuration is accepted, its probe answers, and SIGTERM ends it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.manifests import render

PASSWORD = "a-password"
CONFIG = "/etc/redis/redis.conf"
START_SECONDS = 30.0


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "REDIS_PASSWORD": PASSWORD, "REDIS_MAXMEMORY": "64mb"}


@pytest.fixture
def redis(tmp_path: Path, port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    if shutil.which("redis-server") is None:
        pytest.fail("redis-server is missing; install it: apt-get install redis-server", pytrace=False)
    rendering = render("overlays/laptop")
    container = rendering.workload("redis").containers[0]
    volumes = rendering.workload("redis").pod["volumes"]
    (name,) = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    config = tmp_path / "redis.conf"
    config.write_text(f"{rendering.one('ConfigMap', name)['data']['redis.conf']}\nport {port}\ndir {tmp_path}\n")
    command = [word.replace(CONFIG, str(config)) for word in (*container["command"], *container["args"])]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def test_the_container_serves_with_its_password_and_ends_at_sigterm(
    redis: subprocess.Popen[bytes], port: int, environment: dict[str, str], tmp_path: Path
) -> None:
    probe = render("overlays/laptop").workload("redis").containers[0]["readinessProbe"]["exec"]["command"]
    probe = [word.replace("redis-cli ping", f"redis-cli -p {port} ping") for word in probe]

    def ready(**changes: str) -> bool:
        return subprocess.run(probe, env={**environment, **changes}, capture_output=True, check=False).returncode == 0

    deadline = time.monotonic() + START_SECONDS
    while not ready():
        assert redis.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not ready(REDIS_PASSWORD="another")
    assert PASSWORD not in Path(f"/proc/{redis.pid}/cmdline").read_text()
    redis.send_signal(signal.SIGTERM)
    assert redis.wait(START_SECONDS) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["redis.conf"]
