"""Large weights lie in float16 under their own names and are float32 again in the graph."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from modeling.half_storage import round_weights, store_weights


def graph_of(weight: np.ndarray, bias: np.ndarray) -> onnx_ir.Model:
    tensors = [onnx.numpy_helper.from_array(weight, "layer.weight"), onnx.numpy_helper.from_array(bias, "layer.bias")]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "layer.weight"], ["product"]),
        onnx.helper.make_node("Add", ["product", "layer.bias"], ["y"]),
    ]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "layer", values[:1], values[1:], tensors)
    return onnx_ir.from_proto(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    )


def test_rounded_weights_are_stored_without_loss(tmp_path: Path) -> None:
    layer = nn.Linear(64, 64)
    round_weights(layer)
    weight, bias = layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()
    model = graph_of(weight, bias)
    store_weights(model.graph)
    onnx_ir.save(model, tmp_path / "layer.onnx")

    stored = {tensor.name: tensor for tensor in onnx.load(tmp_path / "layer.onnx").graph.initializer}
    assert stored["layer.weight"].data_type == onnx.TensorProto.FLOAT16
    assert stored["layer.bias"].data_type == onnx.TensorProto.FLOAT
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    [y] = onnxruntime.InferenceSession(tmp_path / "layer.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, layer(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("value", [1 / 3, 1e30])
def test_weights_that_would_change_are_refused(value: float) -> None:
    model = graph_of(np.full((64, 64), value, np.float32), np.zeros(64, np.float32))
    with pytest.raises(ValueError, match=r"layer\.weight is not representable"):
        store_weights(model.graph)
