"""Run exported graphs and compiled engines, for the parity gate."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from modeling.half_emulation import write_emulation
from modeling.precision import FP16, Precision

# A function from a graph's inputs, in its order, to its outputs.
GraphRunner = Callable[..., list[npt.NDArray[Any]]]


def graph_runner(path: Path, precision: Precision) -> GraphRunner:
    """Load an ONNX file into ONNX Runtime on the CPU, with half precision emulated where the graph computes in it."""
    if precision != FP16:
        return onnx_runtime(path)
    with tempfile.TemporaryDirectory() as folder:
        emulation = Path(folder) / path.name
        write_emulation(path, emulation)
        return onnx_runtime(emulation)


def onnx_runtime(path: Path) -> GraphRunner:
    """Load an ONNX file into ONNX Runtime on the CPU, as it is."""
    options = onnxruntime.SessionOptions()
    # Return the arena's memory after each run, because other steps need it.
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [graph_input.name for graph_input in session.get_inputs()]

    def run(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        outputs: list[npt.NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
        return outputs

    return run
