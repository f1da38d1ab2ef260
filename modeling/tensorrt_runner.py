"""Run TensorRT engines on a GPU, for the parity gate and benchmarks. PyTorch owns the memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from modeling.runtimes import GraphRunner

# A function from an engine's inputs, in its order and on the GPU, to its outputs there.
EngineRunner = Callable[..., list[Tensor]]


class EngineFailed(RuntimeError):
    """An engine cannot be loaded or run on this machine's GPU."""


def has_gpu() -> bool:
    """Return True if this machine has a GPU that can run engines."""
    return torch.cuda.is_available()


def gpu_name() -> str | None:
    """NVIDIA's name of the current GPU, or None without one."""
    return torch.cuda.get_device_name() if has_gpu() else None


def engine_runner(trt: ModuleType, path: Path) -> EngineRunner:
    """Load an engine file onto the current GPU.

    Args:
        trt: the module that compiled it, as `load_builder` returns it.
        path: the engine file.

    Raises:
        EngineFailed: it was compiled by another version or for another GPU, or a run fails.
    """
    log = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise EngineFailed(
            f"{path} cannot be loaded: it was built by another version than {trt.__version__}, or for another GPU"
        )
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    types = _types(trt)
    stream = torch.cuda.Stream()

    def run(*tensors: Tensor) -> list[Tensor]:
        held = dict(zip(inputs, (tensor.contiguous() for tensor in tensors), strict=True))
        for name, tensor in held.items():
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise EngineFailed(f"{path}: {name} of shape {tuple(tensor.shape)} is outside the engine's profile")
        for name in outputs:
            shape, dtype = tuple(context.get_tensor_shape(name)), types[engine.get_tensor_dtype(name)]
            held[name] = torch.empty(shape, dtype=dtype, device="cuda")
        for name, tensor in held.items():
            context.set_tensor_address(name, tensor.data_ptr())
        stream.wait_stream(torch.cuda.current_stream())
        if not context.execute_async_v3(stream.cuda_stream):
            raise EngineFailed(f"{path}: the run failed")
        stream.synchronize()
        return [held[name] for name in outputs]

    return run


def on_arrays(runner: EngineRunner) -> GraphRunner:
    """Wrap an engine's runner to take and return arrays, which are copied to and from the GPU."""

    def run(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        return [output.cpu().numpy() for output in runner(*(torch.from_numpy(array).cuda() for array in arrays))]

    return run


def _types(trt: ModuleType) -> Mapping[Any, torch.dtype]:
    return {
        trt.float32: torch.float32,
        trt.float16: torch.float16,
        trt.int32: torch.int32,
        trt.uint8: torch.uint8,
    }
