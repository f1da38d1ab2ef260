"""Running exported graphs, for the parity gate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

# A graph's inputs in its order, to its outputs.
GraphRunner = Callable[..., list[npt.NDArray[Any]]]


def onnx_runtime(path: Path) -> GraphRunner:
    """Load an ONNX file into ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    # Memory that the arena keeps for the next run is missed by whatever runs beside the gate.
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [graph_input.name for graph_input in session.get_inputs()]

    def run(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        outputs: list[npt.NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
        return outputs

    return run
