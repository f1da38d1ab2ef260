"""Emulate on a CPU what a half-precision graph computes on a GPU.

ONNX Runtime has no half-precision arithmetic on CPUs: it runs such a graph entirely in single precision and rounds only
its outputs, so that nothing ever overflows. This module rewrites the graph to single precision with every result
rounded to half. Tensor cores give the same results (they accumulate in single precision). Engines that fuse operations
round less often.
"""

from pathlib import Path

import onnx_ir
from onnx_ir import DataType, Node, Value

# The node itself states their type.
TYPED_BY_ATTRIBUTE = {"Cast", "Constant", "ConstantOfShape"}
# Operations that keep rounded values unchanged.
EXACT = {
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "Min", "Pad", "Relu", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


def write_emulation(graph: Path, emulation: Path) -> None:
    """Rewrite an ONNX file into one that rounds to half precision wherever the graph computes in it.

    Args:
        graph: the ONNX file, its external data beside it; its inputs and outputs keep their types.
        emulation: the file to write; weights go to `<emulation>.data` beside it.
    """
    model = onnx_ir.load(graph)
    emulate(model.graph)
    onnx_ir.save(model, emulation, external_data=f"{emulation.name}.data")


def emulate(graph: onnx_ir.Graph) -> None:
    """Make a graph compute in single precision and round to half, in place."""
    nodes = list(graph)
    for value in [*graph.inputs, *graph.initializers.values()]:
        if value.dtype == DataType.FLOAT16:
            graph.insert_before(nodes[0], _widened(value))
    for node in nodes:
        for output in node.outputs:
            if output.dtype != DataType.FLOAT16:
                continue
            if node.op_type in TYPED_BY_ATTRIBUTE:
                if not output.is_graph_output():
                    graph.insert_after(node, _widened(output))
            elif node.op_type in EXACT and not output.is_graph_output():
                output.dtype = DataType.FLOAT
            else:
                graph.insert_after(node, _rounded(output))


def _widened(value: Value) -> Node:
    """Insert a cast of a half-precision value to single and use it in place of the value."""
    return _used_instead(value, DataType.FLOAT)


def _rounded(value: Value) -> list[Node]:
    """Insert casts of a single-precision result to half and back, and use them in place of the result."""
    value.dtype = DataType.FLOAT
    name, value.name = value.name, f"{value.name}_exact"
    rounding = _used_instead(value, DataType.FLOAT16)
    [rounded] = rounding.outputs
    rounded.name = name
    return [rounding] if rounded.is_graph_output() else [rounding, _widened(rounded)]


def _used_instead(value: Value, dtype: DataType) -> Node:
    cast = onnx_ir.node("Cast", [value], attributes={"to": dtype})
    [result] = cast.outputs
    result.dtype, result.shape = dtype, value.shape
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    cast.replace_input_with(0, value)
    return cast
