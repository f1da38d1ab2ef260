"""A real Redis and a real Triton for the tests, and models for text prompts."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from samserve.gateway.settings import default_model_repository
from stack.triton_server import TritonInstallation, TritonMissing, provide
from tests.support.redis_server import RedisServer
from tests.support.triton_server import TritonServer

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


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running, empty Redis."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def clip_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's model repository and a small CLIP of random weights, built once for all workers."""
    # What builds models takes a while to load, and most tests need none of it.
    from modeling.clip_build import build_clip
    from tests.support.small_clip import write_checkpoint

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    repository = shared / "clip-repository"
    with (shared / "clip-repository.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not repository.exists():
            folder = tmp_path_factory.mktemp("clip")
            draft = folder / "models"
            shutil.copytree(default_model_repository(), draft, ignore=shutil.ignore_patterns("__pycache__"))
            build_clip(write_checkpoint(folder / "small-clip"), draft, "cpu")
            draft.rename(repository)
    return repository


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
