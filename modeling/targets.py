"""The build targets, and their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from modeling.precision import FP16, FP32, Precision
from modeling.tensorrt_builder import TENSORRT, TENSORRT_RTX, Builder

if TYPE_CHECKING:
    from modeling.triton_config import Flavour


@dataclass(frozen=True, slots=True)
class Target:
    """One form of a model repository.

    Attributes:
        precision: that is built unless another is asked for.
        builder: of engines, beside the ONNX files.
        flavour: of Triton's configuration.
    """

    precision: Precision
    builder: Builder | None = None
    flavour: "Flavour | None" = None


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "onnx": Target(FP32),
        "cpu": Target(FP32, flavour="cpu"),
        "tensorrt": Target(FP16, builder=TENSORRT, flavour="tensorrt"),
        # No Triton backend loads its engines. They prove that the graphs compile, and benchmarks run them.
        "tensorrt-rtx": Target(FP16, builder=TENSORRT_RTX),
    }
)
