"""Callers of a whole stack, and what Prometheus says of it."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from samserve.client import Client, ClientError
from stack.probes import query, sample
from stack.stack import Stack
from tests.support.gateway import photo

POINT = [(20, 15)]
KNOWN_IMAGES = 8
_EVENTUALLY_SECONDS = 90.0
_CALLERS = 3


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


def answered(stack: Stack, rpc: str) -> Counter[int]:
    """Calls that each gateway has answered."""
    return Counter(
        {
            number: int(sample(port, "samserve_requests_total", rpc=rpc, code="OK"))
            for number, port in enumerate(stack.ports.gateway_metrics)
        }
    )


def in_prometheus(stack: Stack, promql: str) -> float:
    return sum(query(stack.ports.prometheus, promql).values())


def eventually_in_prometheus(stack: Stack, promql: str, is_so: Callable[[float], bool]) -> None:
    """Wait until Prometheus has seen it."""
    eventually(lambda: is_so(in_prometheus(stack, promql)), f"Prometheus saw {promql} as it is")
