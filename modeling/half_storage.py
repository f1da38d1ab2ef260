"""Store weights in half precision on disk while the arithmetic stays in single precision.

Used for the bundled model in this repository; it halves the files. The weights are first rounded in the PyTorch model,
so that reference and graph have the same values and storing them loses no more accuracy.
"""

import numpy as np
import onnx_ir
import torch
from torch import nn

# Smaller tensors (norms, biases, tokens, the frequencies of the positional encoding) stay exact, because rounding them
# saves nothing.
MIN_ELEMENTS = 4096


def round_weights(model: nn.Module) -> None:
    """Round the model's large weights to half precision, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() >= MIN_ELEMENTS:
                parameter.copy_(parameter.half().float())


def store_weights(graph: onnx_ir.Graph) -> None:
    """Convert the graph's large float32 initializers to float16 ones of the same name, each followed by a Cast.

    Raises:
        ValueError: a weight would change, because it was not rounded before.
    """
    casts = []
    for name, value in list(graph.initializers.items()):
        weight = value.const_value
        if weight is None or weight.dtype != onnx_ir.DataType.FLOAT or weight.size < MIN_ELEMENTS:
            continue
        exact = weight.numpy()
        with np.errstate(over="ignore"):
            half = exact.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), exact):
            raise ValueError(f"{name} is not representable in half precision; round the weights before exporting")
        del graph.initializers[name]
        stored = onnx_ir.val(name, onnx_ir.DataType.FLOAT16, half.shape, const_value=onnx_ir.tensor(half, name=name))
        graph.register_initializer(stored)
        cast = onnx_ir.node("Cast", [stored], attributes={"to": onnx_ir.DataType.FLOAT})
        value.replace_all_uses_with(cast.outputs[0])
        casts.append(cast)
    if casts:
        graph.insert_before(graph[0], casts)
