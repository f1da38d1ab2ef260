"""A SAM graph with random weights, run with PyTorch in Triton's Python backend.

`1/model.py` imports it, with its settings beside it (repository.py). On a GPU the usual shapes are captured as CUDA
graphs; other shapes run eagerly. Tensors pass by DLPack: before Triton 24.11 `as_numpy` does not understand numpy 2.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from modeling.decoder_graph import MaskDecoderGraph
from modeling.encoder_graph import ImageEncoderGraph
from modeling.random_weights import random_model

GRAPHS = {"sam_image_encoder": ImageEncoderGraph, "sam_mask_decoder": MaskDecoderGraph}
WARM_UP_RUNS = 3


class CapturedBatch:
    """A CUDA graph of a module at one batch size, with its input and output tensors."""

    def __init__(self, module: nn.Module, row: Sequence[Tensor], rows: int, pool: Any) -> None:
        self.inputs = [tensor.repeat(rows, *[1] * (tensor.dim() - 1)) for tensor in row]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                module(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.outputs = as_list(module(*self.inputs))

    def run(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Copy the rows of each input into the captured tensors and replay the graph. Outputs are valid until the next
        run."""
        for static, rows in zip(self.inputs, parts, strict=True):
            start = 0
            for part in rows:
                static[start : start + len(part)].copy_(part, non_blocking=True)
                start += len(part)
        self._graph.replay()
        return self.outputs


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Create the weights on the device and capture the usual batch sizes."""
        folder = Path(arguments["model_repository"]) / arguments["model_version"]
        settings = json.loads((folder / "settings.json").read_text())
        config = json.loads(arguments["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._device = torch.device(settings["device"])
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        started = time.monotonic()
        model = random_model(settings["model"], settings["seed"], settings["device"])
        self._module = GRAPHS[config["name"]](model, settings["precision"]).to(self._device).eval()
        weights_seconds, started = time.monotonic() - started, time.monotonic()
        # Shapes of one row: an image, or one prompt of two points, as in the configuration's warm-up.
        row = [
            torch.zeros([1, *shape], dtype=getattr(torch, kind), device=self._device) for shape, kind in settings["row"]
        ]
        self._row_shapes = [tuple(tensor.shape[1:]) for tensor in row]
        self._captured: dict[int, CapturedBatch] = {}
        failure = self._capture(row, settings["batches"]) if self._device.type == "cuda" else None
        report = {
            "captured_batches": sorted(self._captured),
            "weights_seconds": round(weights_seconds, 2),
            "capture_seconds": round(time.monotonic() - started, 2),
            "capture_failed": failure,
            "torch": str(torch.__version__),
        }
        (folder / "report.json").write_text(json.dumps(report))

    def _capture(self, row: Sequence[Tensor], batches: Sequence[int]) -> str | None:
        """Capture the batches, the largest first. Batches that cannot be captured run eagerly. Returns the reason, if
        any."""
        pool = torch.cuda.graph_pool_handle()
        try:
            with torch.inference_mode():
                for rows in sorted(batches, reverse=True):
                    self._captured[rows] = CapturedBatch(self._module, row, rows, pool)
        except Exception as error:
            return repr(error)
        return None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests as one batch, and split the outputs by request."""
        try:
            parts = [
                [from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for request in requests]
                for name in self._inputs
            ]
            sizes = [len(part) for part in parts[0]]
            outputs = self._run(parts, sum(sizes))
        except Exception as error:
            failure = pb_utils.TritonError(f"PyTorch failed: {error!r}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        rows = zip(*(output.split(sizes) for output in outputs), strict=True)
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor.from_dlpack(name, part.__dlpack__())
                    for name, part in zip(self._outputs, row, strict=True)
                ]
            )
            for row in rows
        ]

    def _run(self, parts: Sequence[Sequence[Tensor]], rows: int) -> list[Tensor]:
        """Compute the outputs, in host memory. Inputs may be in host or device memory."""
        shapes = [tuple(part[0].shape[1:]) for part in parts]
        size = next((size for size in sorted(self._captured) if size >= rows), None)
        with torch.inference_mode():
            if size is not None and shapes == self._row_shapes:
                outputs = self._captured[size].run(parts)
            else:
                outputs = as_list(
                    self._module(*(torch.cat([part.to(self._device) for part in each]) for each in parts))
                )
            return [self._to_host(output[:rows]) for output in outputs]

    def _to_host(self, output: Tensor) -> Tensor:
        if self._device.type == "cpu":
            return output.contiguous()
        host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
        host.copy_(output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return host


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs as a list; a graph with a single output returns no tuple."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
