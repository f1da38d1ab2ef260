"""A Triton model repository whose models run in PyTorch with random weights."""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tritonclient.grpc import model_config_pb2 as pb

from modeling.triton_config import MODELS, Flavour, config_text, default_max_batch, model_config
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest
from samserve.gateway.settings import default_model_repository

Device = Literal["cpu", "cuda"]

SEED = 0
ROOT = Path(__file__).resolve().parents[2]
BACKEND = """import sys

sys.path += {paths}

from benchmarks.gpu_triton.torch_backend import TritonPythonModel
"""
CAPTURED_BATCHES = {ENCODER: (1, 2, 4), DECODER: (1, 2, 4, 8, 16)}
# SAM's sizes, common to `vit_h`, `vit_l` and `vit_b`.
SAM = ModelManifest("vit_h", "", "fp16", 1024, (256, 64, 64), 256)
MODEL_NAMES = ("vit_h", "vit_l", "vit_b", "tiny")

_KINDS = {pb.TYPE_UINT8: "uint8", pb.TYPE_INT32: "int32", pb.TYPE_FP16: "float16", pb.TYPE_FP32: "float32"}


@dataclass(frozen=True, slots=True)
class TorchRepository:
    """The folder and the sizes of the models."""

    folder: Path
    manifest: ModelManifest
    device: Device

    def reports(self) -> dict[str, Any]:
        """The report of each model about its start."""
        paths = {model: self.folder / model / "1" / "report.json" for model in MODELS}
        return {model: json.loads(path.read_text()) for model, path in paths.items() if path.is_file()}


def write_repository(folder: Path, model: str, device: Device) -> TorchRepository:
    """Write both models: half precision on a GPU, single precision on the CPU.

    Args:
        folder: is made, and must not exist.
        model: one of `MODEL_NAMES`; `tiny` has the sizes of the bundled model.
    """
    sizes = ModelManifest.read(default_model_repository()) if model == "tiny" else SAM
    precision = "fp16" if device == "cuda" else "fp32"
    fingerprint = "sha256:" + hashlib.sha256(f"{model} {SEED} {precision}".encode()).hexdigest()
    manifest = replace(sizes, model=model, precision=precision, fingerprint=fingerprint, provenance={})
    folder.mkdir()
    manifest.write(folder)
    for name in MODELS:
        config = torch_config(name, manifest, device)
        version = folder / name / "1"
        version.mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config_text(config))
        (version / "model.py").write_text(BACKEND.format(paths=package_paths()))
        (version / "settings.json").write_text(json.dumps(_settings(config, manifest, device)))
    return TorchRepository(folder, manifest, device)


def package_paths() -> list[str]:
    """Paths through which the models find this project and this interpreter's PyTorch.

    Triton's Python backend ignores `PYTHONPATH`, and may take another prefix than this interpreter's.
    """
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [str(ROOT), str(ROOT / "service"), *packages]


def torch_config(name: str, manifest: ModelManifest, device: Device) -> Any:
    """The production configuration of a model, for the Python backend on the device."""
    flavour: Flavour = "tensorrt" if device == "cuda" else "cpu"
    config = model_config(name, manifest, flavour, default_max_batch(flavour, name))
    config.ClearField("platform")
    config.ClearField("default_model_filename")
    config.backend = "python"
    # Tensors that arrive in device memory stay there.
    config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"
    return config


def _settings(config: Any, manifest: ModelManifest, device: Device) -> dict[str, Any]:
    warmup = config.model_warmup[0].inputs
    return {
        "model": manifest.model,
        "seed": SEED,
        "precision": manifest.precision,
        "device": device,
        "batches": CAPTURED_BATCHES[config.name],
        "row": [(list(warmup[tensor.name].dims), _KINDS[tensor.data_type]) for tensor in config.input],
    }
