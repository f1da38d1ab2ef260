"""Ways to run a module: eager, compiled block by block, or replayed as a CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

RECOMPILE_LIMIT = 64
"""Maximum number of compilations of one code object. Two kinds of blocks at several batch sizes exceed PyTorch's
default of 8, after which it silently runs them without compiling."""


def compile_options(device: str, *, dynamic: bool | None = False, mode: str | None = None) -> dict[str, Any]:
    """Arguments for `torch.compile` that make it fail instead of falling back to the interpreter.

    On a processor it traces and does not generate code, which takes a C++ compiler half a minute a graph.
    """
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    if device != "cuda":
        return {"fullgraph": True, "dynamic": dynamic, "backend": "aot_eager"}
    return {"fullgraph": True, "dynamic": dynamic, "mode": mode}


def compiled_graphs() -> int:
    """Return the number of graphs that this process has compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def in_mode(mode: str, function: Function, device: str, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """Wrap one call as a task: replayed if the mode is a CUDA graph, otherwise called directly."""
    return replayed(function, device, *inputs) if "CUDA graph" in mode else lambda: function(*inputs)


def replayed(function: Function, device: str, *inputs: Tensor) -> Callable[[], Any]:
    """Capture one call in a CUDA graph and return its replay, which reads the same inputs and writes the same outputs.

    On a processor, which has no such graphs, the call itself.
    """
    if device != "cuda":
        return lambda: function(*inputs)
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = function(*inputs)

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay
