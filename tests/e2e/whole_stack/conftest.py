"""The stack of `make stack` on ports of its own, and callers that do not let up while parts of it fail."""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from samserve.client import Client, ClientError
from stack.ports import Ports, address
from stack.stack import ProgramMissing, Stack
from stack.triton_server import TritonMissing
from tests.integration.gateway.conftest import photo

POINT = [(20, 15)]
KNOWN_IMAGES = 8

_EVENTUALLY_SECONDS = 90.0
_CALLERS = 3


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


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for what happens in other processes."""
    deadline = time.monotonic() + _EVENTUALLY_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it never came about that {what}"
        time.sleep(0.1)


@dataclass
class Callers:
    """Ask through Envoy, for known images and for new ones, with the client's own policy of retries."""

    done: int = 0
    errors: list[ClientError] = field(default_factory=list)

    def go_on(self, calls: int = 20) -> None:
        """Wait for so many more calls."""
        goal = self.done + calls
        eventually(lambda: self.done >= goal, f"{calls} more calls were answered")


@contextmanager
def calling(target: str) -> Iterator[Callers]:
    """Callers that ask until the block is left."""
    callers, stop = Callers(), threading.Event()

    def call(number: int) -> None:
        dice = random.Random(number)
        with Client(target) as client:
            while not stop.is_set():
                seed = dice.randrange(KNOWN_IMAGES) if dice.random() < 0.8 else dice.randrange(1000, 1 << 30)
                try:
                    client.segment(photo(seed), POINT)
                except ClientError as error:
                    callers.errors.append(error)
                callers.done += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(_CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
