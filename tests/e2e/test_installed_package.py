"""The steps of the gateway's container file in a clean virtual environment: a container engine is not everywhere."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from samserve.client import Client
from tests.support.gateway_process import PHOTO

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "k8s/containers/constraints.txt"
READY_SECONDS = 120.0

# Installing takes minutes where the network or the disk is slow.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has no pip and knows no checkout."""
    environment = tmp_path_factory.mktemp("installed") / "samserve"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(environment / "bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--constraint", str(CONSTRAINTS), f"{ROOT}[tracing]"], check=True)
    return environment / "bin"


def test_an_installed_gateway_serves_from_an_empty_folder_and_ends_at_sigterm(installed: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "empty"
    home.mkdir()
    log = tmp_path / "log"
    # No variable of this process, PYTHONPATH for one.
    environment = {"SAMSERVE_PORT": str(port), "SAMSERVE_STOP_GRACE_SECONDS": "5", "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(installed / "samserve"), "serve"], cwd=home, env=environment, stdout=output, stderr=output
        )
    try:
        with Client(f"127.0.0.1:{port}") as client:
            deadline = time.monotonic() + READY_SECONDS
            while not client.healthy():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            assert client.segment(PHOTO, point_coords=[(300, 200)], point_labels=[1]).masks.any()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert list(home.iterdir()) == []
