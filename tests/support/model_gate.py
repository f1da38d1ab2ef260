"""Models in this process that run when the test lets them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnxruntime
import pytest

from tests.support.waiting import eventually

_GATE_SECONDS = 30.0


class ModelGate:
    """Holds the runs of one graph on ONNX Runtime, in the thread that runs it.

    Attributes:
        begun: runs that a thread has taken since the gate was shut last, the held ones included.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        """Hold the runs that begin from now on."""
        self.begun = 0
        self._open.clear()

    def open(self) -> None:
        """Let the held runs, and all later ones, go on."""
        self._open.set()

    async def holds(self, runs: int = 1) -> None:
        """Wait until so many runs have begun."""
        await eventually(lambda: self.begun >= runs)

    def enter(self) -> None:
        """Pass in the thread that runs the graph."""
        self.begun += 1
        assert self._open.wait(_GATE_SECONDS), "a test left the gate shut"


@contextmanager
def gated(graph_input: str) -> Iterator[ModelGate]:
    """Put a gate before the graph that has an input of this name, in every session of ONNX Runtime."""
    gate, run = ModelGate(), onnxruntime.InferenceSession.run

    def run_when_open(session: Any, outputs: Any, inputs: dict[str, Any], *options: Any) -> Any:
        if graph_input in inputs:
            gate.enter()
        return run(session, outputs, inputs, *options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "run", run_when_open)
        try:
            yield gate
        finally:
            gate.open()
