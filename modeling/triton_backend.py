"""Model for Triton's Python backend on a machine without a GPU: runs a graph on ONNX Runtime's CPU provider.

modeling/triton_config.py copies it to `1/model.py` next to `model.onnx`. A batch is one run: the models' inputs are not
declared ragged, so Triton batches only requests of equal shapes. Tensors are passed by DLPack, because before Triton
24.11 `as_numpy` and `Tensor(name, array)` do not support numpy 2 (triton-inference-server/python_backend#384).
"""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import triton_python_backend_utils as pb_utils

_USED = b"used_dltensor"
_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Load the graph of this model's version."""
        config = json.loads(arguments["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        options = onnxruntime.SessionOptions()
        # Spinning threads would take CPU time from the gateway on the same machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(arguments["model_repository"]) / arguments["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests as one batch, and split the outputs by request."""
        rows = [
            {name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in self._inputs}
            for request in requests
        ]
        inputs = {name: np.concatenate([row[name] for row in rows]) for name in self._inputs}
        try:
            outputs = self._session.run(self._outputs, inputs)
        except Exception as error:
            failure = pb_utils.TritonError(f"ONNX Runtime failed: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([len(row[self._inputs[0]]) for row in rows])[:-1]
        parts = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [
            pb_utils.InferenceResponse([_tensor(name, part) for name, part in zip(self._outputs, row, strict=True)])
            for row in parts
        ]


def _tensor(name: str, array: npt.NDArray[Any]) -> Any:
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # The backend renames a capsule after taking over its tensor, which numpy rejects.
    _rename_capsule(capsule, _USED)
    return tensor
