"""Copies in half precision: islands, names, batch norms; and what an emulated graph does that ONNX Runtime does not."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn
from transformers import SamModel

from modeling.half_emulation import emulate
from modeling.half_precision import halved
from modeling.runtimes import onnx_runtime
from modeling.single_softmax import keep_softmax_single
from modeling.tiny_vit import ConvNorm

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def test_norms_and_positions_stay_single_and_the_rest_is_half(small_model: SamModel) -> None:
    half = halved(small_model.mask_decoder)
    kinds = {name: parameter.dtype for name, parameter in half.named_parameters()}
    assert kinds.keys() == dict(small_model.mask_decoder.named_parameters()).keys()
    assert kinds["transformer.layers.0.layer_norm1.weight"] == torch.float32
    assert kinds["upscale_layer_norm.bias"] == torch.float32
    assert kinds["transformer.layers.0.self_attn.q_proj.weight"] == torch.float16
    positions = halved(small_model.shared_image_embedding)
    assert positions.positional_embedding.dtype == torch.float32
    assert positions(torch.zeros(1, 2)).dtype == torch.float16


def test_the_original_stays_as_it_was(small_model: SamModel) -> None:
    before = {key: tensor.clone() for key, tensor in small_model.state_dict().items()}
    half = halved(small_model.vision_encoder)
    with torch.no_grad():
        for parameter in half.parameters():
            parameter.zero_()
    for key, tensor in small_model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_an_island_does_not_overflow() -> None:
    norm = nn.LayerNorm(4)
    values = torch.tensor([[30000.0, -30000.0, 20000.0, 10.0]])
    output = halved(norm)(values.half())
    assert output.dtype == torch.float16
    torch.testing.assert_close(output.float(), norm(values).detach(), atol=1e-3, rtol=0)


def test_batch_norms_go_into_their_convolutions() -> None:
    block = ConvNorm(3, 8, 3)
    with torch.no_grad():
        for tensor in (*block.parameters(), *block.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    block.eval()
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, folded = block(image), halved(block)
        assert isinstance(folded.bn, nn.Identity)
        torch.testing.assert_close(folded.float()(image), expected, atol=0.01, rtol=1e-3)


def test_no_batch_norm_of_an_encoder_is_left_over(small_model: SamModel) -> None:
    kinds = {type(part) for part in small_model.vision_encoder.modules()}
    folded = {type(part) for part in halved(small_model.vision_encoder).modules()}
    assert nn.BatchNorm2d in kinds
    assert folded == kinds - {nn.BatchNorm2d}


def half_graph(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 4)) -> onnx_ir.Model:
    """From `x` to `y`, both half precision; `c` is 0.1."""
    graph = onnx.helper.make_graph(
        list(nodes),
        "half",
        [onnx.helper.make_tensor_value_info("x", FLOAT16, shape)],
        [onnx.helper.make_tensor_value_info("y", FLOAT16, shape)],
        [onnx.helper.make_tensor("c", FLOAT16, [1], [0.1])],
        value_info=[onnx.helper.make_tensor_value_info("a", FLOAT16, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return onnx_ir.from_proto(model)


def run(model: onnx_ir.Model, path: Path, x: list[float]) -> Tensor:
    onnx_ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    [y] = onnx_runtime(path)(np.array([x], np.float16))
    assert y.dtype == np.float16
    return torch.from_numpy(y[0])


def test_what_overflows_on_a_gpu_overflows_as_emulated_and_not_on_onnx_runtime(tmp_path: Path) -> None:
    nodes = (onnx.helper.make_node("Add", ["x", "x"], ["a"]), onnx.helper.make_node("Mul", ["a", "c"], ["y"]))
    model = half_graph(*nodes)
    values = [40000.0, 30000.0, -40000.0, 0.33325]
    assert torch.isfinite(run(model, tmp_path / "as_it_is.onnx", values)).all()
    emulate(model.graph)
    emulated = run(model, tmp_path / "emulated.onnx", values)
    assert emulated.tolist() == [float("inf"), 6000.0, float("-inf"), torch.tensor(0.6665).half().mul(0.1).item()]


def test_every_result_is_rounded(tmp_path: Path) -> None:
    # Half precision holds 2048 and 2050, not 2049: the first sum is lost.
    nodes = (onnx.helper.make_node("Add", ["x", "one"], ["a"]), onnx.helper.make_node("Sub", ["a", "x"], ["y"]))
    model = half_graph(onnx.helper.make_node("Constant", [], ["one"], value_float=1.0), *nodes)
    [constant, *_] = model.graph
    constant.attributes["value"] = onnx_ir.AttrTensor("value", onnx_ir.tensor(np.array(1.0, np.float16)))
    del constant.attributes["value_float"]
    constant.outputs[0].dtype = onnx_ir.DataType.FLOAT16
    emulate(model.graph)
    assert run(model, tmp_path / "emulated.onnx", [2048.0, 2050.0, 1.0, 0.0]).tolist() == [0.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("emulated", [False, True])
def test_softmax_computes_in_single_precision(emulated: bool, tmp_path: Path) -> None:
    nodes = (onnx.helper.make_node("Softmax", ["x"], ["a"], axis=-1), onnx.helper.make_node("Identity", ["a"], ["y"]))
    model = half_graph(*nodes)
    keep_softmax_single(model.graph)
    assert [node.op_type for node in model.graph] == ["Cast", "Softmax", "Cast", "Identity"]
    if emulated:
        emulate(model.graph)
    logits = [3.0, 1.0, 0.5, -2.0]
    weights = run(model, tmp_path / "softmax.onnx", logits)
    torch.testing.assert_close(weights, torch.softmax(torch.tensor(logits), 0).half())
