"""Export PyTorch modules to ONNX files."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import onnx_ir.passes.common as graph_passes
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.export import Dim

from modeling.architectures import SamParts, model_sizes
from modeling.decoder_graph import MaskDecoderGraph
from modeling.encoder_graph import ImageEncoderGraph
from modeling.half_storage import store_weights
from modeling.precision import FP32, Precision
from modeling.prompts import ABSENT
from modeling.single_softmax import keep_softmax_single

# Opset 17 introduced LayerNormalization; torch's exporter writes 18 without a conversion.
OPSET_VERSION = 18

# A protobuf message is limited to 2 GiB. Larger weights are stored next to the graph.
EXTERNAL_DATA_BYTES = 1 << 30
EXTERNAL_DATA_SUFFIX = ".data"

BATCH = Dim("batch", min=1, max=4096)
PROMPTS = Dim("prompts", min=1, max=65536)
TOKENS = Dim("tokens", min=1, max=4096)


def export_encoder(model: SamParts, path: Path, *, precision: Precision = FP32, half_storage: bool = False) -> None:
    """Write `sam_image_encoder` (see `ImageEncoderGraph` for its tensors).

    Args:
        model: the parts of the model, in evaluation mode.
        path: of the file to write; large weights go to `<path>.data` beside it.
        precision: of the arithmetic; inputs and outputs keep their types.
        half_storage: keep the weights in half precision; they must have been rounded before.
    """
    side = model_sizes(model).image_size
    # Batch size 2, because torch.export treats a dimension of size 1 as constant.
    inputs = (torch.zeros(2, 3, side, side, dtype=torch.uint8), torch.full((2, 2), side, dtype=torch.int32))
    dynamic = {"image": {0: BATCH}, "input_size": {0: BATCH}}
    export_module(ImageEncoderGraph(model, precision), inputs, dynamic, ("image_embeddings",), path, half_storage)


def export_decoder(model: SamParts, path: Path, *, precision: Precision = FP32, half_storage: bool = False) -> None:
    """Write `sam_mask_decoder` (see `MaskDecoderGraph` for its tensors). Arguments as for `export_encoder`."""
    _, channels, grid, low_res = model_sizes(model)
    batch, prompts, tokens = 2, 3, 5
    inputs = (
        torch.zeros(batch, channels, grid, grid, dtype=torch.float16),
        torch.zeros(batch, prompts, tokens, 2),
        torch.full((batch, prompts, tokens), ABSENT, dtype=torch.int32),
        torch.zeros(batch, prompts, low_res, low_res),
        torch.zeros(batch, prompts),
    )
    dynamic = {
        "image_embeddings": {0: BATCH},
        "point_coords": {0: BATCH, 1: PROMPTS, 2: TOKENS},
        "point_labels": {0: BATCH, 1: PROMPTS, 2: TOKENS},
        "mask_input": {0: BATCH, 1: PROMPTS},
        "has_mask_input": {0: BATCH, 1: PROMPTS},
    }
    export_module(
        MaskDecoderGraph(model, precision), inputs, dynamic, ("low_res_masks", "iou_predictions"), path, half_storage
    )


def export_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic: dict[str, dict[int, Any]],
    outputs: Sequence[str],
    path: Path,
    half_storage: bool = False,
) -> None:
    """Export a module. It is traced on tensors without contents, so nothing is computed.

    Args:
        module: in whatever precision it is to compute; see `keep_softmax_single`.
        inputs: examples; no dynamic dimension of size 1.
        dynamic: of every input by name, in their order, the dynamic dimensions.
        outputs: their names.
        path: of the file to write.
        half_storage: as for `export_encoder`.
    """
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            verbose=False,
            # The exporter's own optimisation folds and renames weights; _simplify keeps them.
            optimize=False,
            opset_version=OPSET_VERSION,
            input_names=list(dynamic),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
        )
    assert program is not None
    model = program.model
    _simplify(model)
    keep_softmax_single(model.graph)
    if half_storage:
        store_weights(model.graph)
    weights = (value.const_value for value in model.graph.initializers.values())
    weight_bytes = sum(weight.nbytes for weight in weights if weight is not None)
    external_data = path.name + EXTERNAL_DATA_SUFFIX if weight_bytes >= EXTERNAL_DATA_BYTES else None
    onnx_ir.save(model, path, external_data=external_data)
    onnx.checker.check_model(path)


def _simplify(model: onnx_ir.Model) -> None:
    """Fold expressions that depend on no input and no weight (mostly shapes), and remove paths of this machine.

    Weights keep their names, which are those of the state dict: a checkpoint can be read back from the graph.
    """
    weights = set(model.graph.initializers)

    def fold(node: onnx_ir.Node) -> bool | None:
        reads_weight = any(value is not None and value.name in weights for value in node.inputs)
        return False if reads_weight else None

    onnxscript.optimizer.inline(model)
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=fold)
    onnxscript.optimizer.remove_unused_nodes(model)
    _order_gelu(model.graph)
    for simplify in (
        graph_passes.CommonSubexpressionEliminationPass(),
        graph_passes.IdentityEliminationPass(),
        # Doc strings contain stack traces with absolute paths, which are private and not reproducible.
        graph_passes.ClearMetadataAndDocStringPass(),
    ):
        simplify(model)


def _order_gelu(graph: onnx_ir.Graph) -> None:
    """Rewrite x * (0.5 * (1 + erf(x / sqrt 2))), as exported, to (x * (1 + erf(x / sqrt 2))) * 0.5.

    That is the order in which ONNX Runtime knows a GELU and runs it as one kernel.
    """
    for erf in [node for node in graph if node.op_type == "Erf"]:
        [add] = erf.outputs[0].consumers()
        [halve] = add.outputs[0].consumers()
        [multiply] = halve.outputs[0].consumers()
        half = next(value for value in halve.inputs if value is not add.outputs[0])
        x = next(value for value in multiply.inputs if value is not halve.outputs[0])
        for node, others in ((halve, (x, add.outputs[0])), (multiply, (halve.outputs[0], half))):
            for index, value in enumerate(others):
                node.replace_input_with(index, value)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence messages of torch's exporter: that torchvision is missing, and deprecations in its own code."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            # Inputs share the axis "batch" on purpose; it is named after the first of them.
            warnings.filterwarnings("ignore", category=UserWarning, message=".*axis name.*will not be used.*")
            yield
    finally:
        logger.setLevel(level)
