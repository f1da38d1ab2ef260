"""The stack of `make stack` on ports of its own, and callers that do not let up while parts of it fail."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from samserve.client import Client
from stack.ports import Ports, address
from stack.stack import ProgramMissing, Stack
from stack.triton_server import TritonMissing


@pytest.fixture(scope="session", autouse=True)
def _prometheus() -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is missing; install it: apt-get install prometheus")


@pytest.fixture(scope="session")
def ports() -> Ports:
    return Ports.free()


@pytest.fixture(scope="session")
def whole_stack(ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that serves; a test that ends a part of it starts that part again."""
    folder: Path = tmp_path_factory.mktemp("stack")
    # On a busy machine Redis may take longer than production lets it, and an image would be encoded twice.
    settings = {"SAMSERVE_REDIS_BUDGET_SECONDS": "2"}
    try:
        with Stack(folder, ports, scrape_seconds=1.0, gateway_settings=settings) as running:
            yield running
    except (ProgramMissing, TritonMissing) as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture
def client(whole_stack: Stack) -> Iterator[Client]:
    """A client of all gateways, through Envoy."""
    with Client(address(whole_stack.ports.envoy)) as connected:
        yield connected
