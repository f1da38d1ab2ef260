"""Exported modules in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from modeling.export import BATCH, export_module


def test_gelu_becomes_one_kernel_of_onnx_runtime(tmp_path: Path) -> None:
    path = tmp_path / "gelu.onnx"
    module = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    export_module(module, (torch.zeros(2, 8),), {"input": {0: BATCH}}, ("y",), path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kernels = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "Erf" not in kernels
    assert any("Gelu" in kernel for kernel in kernels)

    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(3, 8)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=1e-6)
