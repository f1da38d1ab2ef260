"""A real Triton on the project's own model repository, its Python backend running the bundled model."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from modeling.repository import CONFIG_FILE
from modeling.triton_config import MODELS
from samserve.domain.manifest import ENCODER, ModelManifest
from samserve.gateway.settings import default_model_repository
from stack.triton_server import TritonInstallation, TritonMissing, provide

_START_SECONDS = 90.0
_PORT_ATTEMPTS = 5
_EVENTUAL_SECONDS = 30.0
_BACKEND_MEMORY = "triton_python_backend_shm_region_"

_GATE = """

import time

_run = TritonPythonModel.execute


def _run_when_open(self, requests):
    folder = Path(__file__).parents[1]
    while (folder / "gate").exists():
        (folder / "held").touch()
        time.sleep(0.01)
    return _run(self, requests)


TritonPythonModel.execute = _run_when_open
"""


class TritonServer:
    """A `tritonserver` process of the test's own, that can be made to die and to hang."""

    def __init__(self, installation: TritonInstallation, repository: Path, log: Path, *options: str) -> None:
        self._installation = installation
        self._repository = repository
        self._log = log
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._port, self._metrics_port = _free_port(), _free_port()

    @property
    def address(self) -> str:
        """Of gRPC."""
        return f"127.0.0.1:{self._port}"

    @property
    def metrics_address(self) -> str:
        """Of what Prometheus reads."""
        return f"127.0.0.1:{self._metrics_port}"

    def start(self, repository: Path | None = None) -> None:
        """Start it, on another repository if one is given, and wait until it serves."""
        self._repository = repository or self._repository
        for _ in range(_PORT_ATTEMPTS):
            command = self._installation.command(self._repository, self._port, self._metrics_port)
            command += self._options
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, env=self._installation.environment(), stdout=log, stderr=log, start_new_session=True
                )
            if self._serves():
                return
            self.kill()
            if "Address already in use" not in self._log.read_text():
                break
        pytest.fail(f"Triton does not start; see {self._log}", pytrace=False)

    def kill(self) -> None:
        """End it at once, also while it hangs, and its Python backends with it."""
        if self._process is not None:
            memory = backend_memory(self._process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            for segment in memory:
                segment.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def pause(self) -> None:
        """Make it hang: connections stay, and nothing answers.

        Not its Python backends: Triton 2.51 aborts if it goes on before they do and finds their locks held.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Make it go on, and its models."""
        assert self._process is not None
        self.open_gates()
        self._process.send_signal(signal.SIGCONT)

    def open_gates(self) -> None:
        """End what `pause_model` did."""
        for gate in self._repository.glob("*/gate"):
            gate.unlink()

    def pause_model(self, model: str) -> None:
        """Make one model's runs take until `resume`; Triton itself goes on, and what comes in is queued."""
        folder = self._repository / model
        (folder / "held").unlink(missing_ok=True)
        (folder / "gate").touch()

    async def holds(self, model: str) -> None:
        """Wait until a model that was paused has a run to hold."""
        await eventually((self._repository / model / "held").exists)

    def counted(self, name: str, **labels: str) -> int:
        """The sum of a metric's values over the labels that are not given."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in lines
            if line.startswith(f"{name}{{") and all(label in line for label in wanted)
        )

    def _serves(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return True  # Triton listens once its models are warm
        return False


@pytest.fixture(scope="session")
def installation() -> TritonInstallation:
    try:
        return provide()
    except TritonMissing as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's repository, as a copy with gates: a model does not run while there is a file `gate` beside it."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    shutil.copytree(default_model_repository(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    for backend in folder.glob("*/1/model.py"):
        backend.write_text(backend.read_text() + _GATE)
    return folder


@pytest.fixture(scope="session")
def other_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same sizes: the weights of the encoder's last norm are larger."""
    folder = tmp_path_factory.mktemp("other-repository") / "models"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / ENCODER / "1" / "model.onnx"
    graph = onnx.load(path)
    [last] = [tensor for tensor in graph.graph.initializer if tensor.name.endswith("neck.layer_norm2.weight")]
    last.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(last), last.name))
    onnx.save(graph, path)
    manifest = ModelManifest.read(repository)
    changed = ModelManifest(
        manifest.model,
        "sha256:" + "07" * 32,
        manifest.precision,
        manifest.image_size,
        manifest.embedding_shape,
        manifest.low_res_size,
    )
    changed.write(folder)
    for model in MODELS:
        config = folder / model / CONFIG_FILE
        config.write_text(config.read_text().replace(manifest.fingerprint, changed.fingerprint))
    return folder


@pytest.fixture(scope="session")
def _shared_triton(
    installation: TritonInstallation, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    server = TritonServer(installation, repository, tmp_path_factory.mktemp("triton") / "triton.log")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def triton(_shared_triton: TritonServer) -> Iterator[TritonServer]:
    """A running Triton that the tests share; what a test pauses goes on after it."""
    yield _shared_triton
    _shared_triton.resume()


@pytest.fixture
def new_triton(
    installation: TritonInstallation, repository: Path, tmp_path: Path
) -> Iterator[Callable[..., TritonServer]]:
    """Makes Tritons that are not started yet, with these options, for tests that end or exchange them."""
    servers: list[TritonServer] = []

    def make(*options: str) -> TritonServer:
        servers.append(TritonServer(installation, repository, tmp_path / f"triton-{len(servers)}.log", *options))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what happens in another process, where no event tells of it."""
    async with asyncio.timeout(_EVENTUAL_SECONDS):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def backend_memory(session: int) -> list[Path]:
    """The shared memory of a Triton's Python backends, which they are told by their command line."""
    segments = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(process.name)) == session:
                arguments = (process / "cmdline").read_text().split("\0")
                segments += [Path("/dev/shm", name) for name in arguments if name.startswith(_BACKEND_MEMORY)]
    return segments


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
