"""The precisions in which a graph can compute. Its inputs and outputs have the same types in all of them."""

from typing import Literal

Precision = Literal["fp16", "fp32"]
FP16: Precision = "fp16"
FP32: Precision = "fp32"
PRECISIONS: tuple[Precision, ...] = (FP16, FP32)
