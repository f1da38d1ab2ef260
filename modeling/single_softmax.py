"""Keep the softmax of an exported half-precision graph in single precision.

A separate module, because it needs `onnx_ir`, which the PyTorch side of half precision does not.
"""

import onnx_ir


def keep_softmax_single(graph: onnx_ir.Graph) -> None:
    """Put every Softmax of a graph on half-precision tensors between casts to single precision and back.

    Some thousand exponentials are summed in it. Fused attention kernels are found in spite of the casts.
    """
    for node in list(graph):
        if node.op_type != "Softmax" or node.outputs[0].dtype != onnx_ir.DataType.FLOAT16:
            continue
        [logits], [weights] = node.inputs, node.outputs
        wide = onnx_ir.node("Cast", [logits], attributes={"to": onnx_ir.DataType.FLOAT})
        narrow = onnx_ir.node("Cast", [weights], attributes={"to": onnx_ir.DataType.FLOAT16})
        weights.replace_all_uses_with(narrow.outputs[0])
        narrow.replace_input_with(0, weights)
        node.replace_input_with(0, wide.outputs[0])
        weights.dtype = onnx_ir.DataType.FLOAT
        narrow.outputs[0].dtype, narrow.outputs[0].shape = onnx_ir.DataType.FLOAT16, weights.shape
        graph.insert_before(node, wide)
        graph.insert_after(node, narrow)
