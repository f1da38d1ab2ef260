"""The wheel in clean virtual environments: the client alone, and the gateway as its container file installs it."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from samserve.client import Client
from tests.support.gateway_process import PHOTO
from tests.support.scripted_gateway import running_gateway

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "k8s/containers/constraints.txt"
READY_SECONDS = 120.0
CLIENT_DOWNLOAD_BYTES = 60e6
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

SERVER_PACKAGES = {
    "cv2",
    "grpc_reflection",
    "onnxruntime",
    "opentelemetry",
    "prometheus_client",
    "pycocotools",
    "pydantic",
    "pydantic_settings",
    "pythonjsonlogger",
    "redis",
    "threadpoolctl",
    "tritonclient",
}

# Installing takes minutes where the network or the disk is slow.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("samserve-*.whl")
    return built


@pytest.fixture(scope="module")
def client_wheels(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install samserve` downloads."""
    folder = tmp_path_factory.mktemp("client-wheels")
    subprocess.run([*PIP, "download", "--constraint", str(CONSTRAINTS), "--dest", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture(scope="module")
def client_only(client_wheels: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the client alone."""
    source = ["--no-index", "--find-links", str(client_wheels)]
    return installed_into(tmp_path_factory.mktemp("client-only") / "samserve", [*source, str(wheel)])


@pytest.fixture(scope="module")
def with_server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the gateway, as the container file installs it."""
    arguments = ["--constraint", str(CONSTRAINTS), f"{wheel}[server,tracing]"]
    return installed_into(tmp_path_factory.mktemp("with-server") / "samserve", arguments)


def installed_into(environment: Path, arguments: Sequence[str]) -> Path:
    """The programs of a new environment that has no pip and knows no checkout."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    subprocess.run([*PIP, "--python", str(environment / "bin/python"), "install", *arguments], check=True)
    return environment / "bin"


def run(program: Path, *arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program with no variable of this process, PYTHONPATH for one."""
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={}, capture_output=True, text=True, timeout=240, check=False)


def test_the_client_with_all_that_it_needs_is_a_small_download(client_wheels: Path) -> None:
    assert sum(file.stat().st_size for file in client_wheels.iterdir()) < CLIENT_DOWNLOAD_BYTES


def test_importing_the_client_imports_no_package_of_the_server(client_only: Path, with_server: Path) -> None:
    code = "import sys, samserve.client; print(*{name.partition('.')[0] for name in sys.modules})"
    for bin_folder in (client_only, with_server):
        done = run(bin_folder / "python", "-c", code, cwd=bin_folder)
        assert done.returncode == 0, done.stderr
        # gRPC itself looks for reflection, and imports it where it is installed.
        assert not (SERVER_PACKAGES - {"grpc_reflection"}) & set(done.stdout.split())


def test_the_client_alone_asks_a_running_gateway(client_only: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "teal").save(tmp_path / "photo.png")
    with running_gateway() as scripted:
        arguments = ["segment", "photo.png", "--point", "1,2", "--json", "--server", scripted.address]
        done = run(client_only / "samserve", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["masks"]) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["serve", "--help"],
        ["serve", "--port", "50051"],
        ["demo"],
        ["segment", PHOTO, "--point", "1,2"],
        ["segment", PHOTO, "--point", "1,2", "--out", "overlay.png", "--server", "127.0.0.1:1"],
        ["generate", PHOTO, "--out", ".", "--overlay", "--server", "127.0.0.1:1"],
        ["gaze", PHOTO, "--out", "gaze.gif", "--server", "127.0.0.1:1"],
        ["track", "video.mp4", "--box", "1,2,3,4", "--server", "127.0.0.1:1"],
    ],
    ids=lambda arguments: f"{arguments[0]}-{arguments[-1]}",
)
def test_a_command_that_needs_the_server_says_what_to_install(
    client_only: Path, tmp_path: Path, arguments: list[str | Path]
) -> None:
    done = run(client_only / "samserve", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'samserve[server]'")


@pytest.mark.parametrize("command", ["segment", "generate", "gaze", "track", "demo"])
def test_help_needs_no_server(client_only: Path, tmp_path: Path, command: str) -> None:
    assert run(client_only / "samserve", command, "--help", cwd=tmp_path).returncode == 0


def test_the_demo_finds_its_photo_outside_of_a_checkout(with_server: Path, tmp_path: Path) -> None:
    done = run(with_server / "samserve", "demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(PHOTO) as photo, Image.open(tmp_path / "demo.png") as picture:
        assert picture.height == photo.height


def test_an_installed_gateway_serves_from_an_empty_folder_and_ends_at_sigterm(
    with_server: Path, tmp_path: Path
) -> None:
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
            [str(with_server / "samserve"), "serve"], cwd=home, env=environment, stdout=output, stderr=output
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
