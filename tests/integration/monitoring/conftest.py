"""A real Prometheus that reads real gateways and evaluates the project's rules."""

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from benchmarks.prometheus import Prometheus
from k8s.monitoring.prometheus_rule import FOLDER

_START_SECONDS = 60.0
_PORT_ATTEMPTS = 5
_INTERVAL = "500ms"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], Prometheus]]:
    """Starts a Prometheus on targets, `host:port` by job."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is missing; install it: apt-get install prometheus")
    processes: list[subprocess.Popen[bytes]] = []

    def start(targets: Mapping[str, str]) -> Prometheus:
        config = tmp_path / "prometheus.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": _INTERVAL, "scrape_timeout": _INTERVAL, "evaluation_interval": "1s"},
                    "rule_files": [str(FOLDER / "*-rules.yaml")],
                    "scrape_configs": [
                        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
                    ],
                }
            )
        )
        for _ in range(_PORT_ATTEMPTS):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            options = {
                "config.file": str(config),
                "storage.tsdb.path": str(tmp_path / f"data-{port}"),
                "web.listen-address": f"127.0.0.1:{port}",
            }
            with (tmp_path / "prometheus.log").open("ab") as log:
                command = [program, *(f"--{name}={value}" for name, value in options.items())]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            if _ready(processes[-1], f"http://127.0.0.1:{port}/-/ready"):
                return Prometheus(f"http://127.0.0.1:{port}")
        pytest.fail((tmp_path / "prometheus.log").read_text(), pytrace=False)

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: "subprocess.Popen[bytes]", url: str) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
