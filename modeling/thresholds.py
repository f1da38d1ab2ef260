"""Thresholds of the parity gate for each precision, with the reasons for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modeling.precision import FP16, FP32, Precision

DEFAULT_IMAGES = 3
MIN_IMAGES = 2
"""Images that the gate tries: it compares the embeddings of different ones."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds on the figures of the same name in `ParityFigures`: upper bounds for errors, lower bounds for the
    others."""

    embedding_error: float
    embedding_cosine: float
    embedding_separation: float
    logit_error: float
    score_error: float
    mask_iou_min: float
    mask_iou_median: float
    padding_error: float


# Embeddings of different images differ by at least a tenth; a broken encoder that ignores its input gives 0.
SEPARATION = 0.02

THRESHOLDS: Mapping[Precision, Thresholds] = MappingProxyType(
    {
        FP32: Thresholds(
            # Half of float16's spacing between 8 and 16 is 0.004: rounding the output, and as much for the arithmetic.
            embedding_error=0.008,
            # Rounding to float16 alone gives 0.9999999; swapped colour channels or missing normalisation less than
            # 0.99.
            embedding_cosine=0.9999,
            embedding_separation=SEPARATION,
            # Float32 sums in a different order: 1e-6 to 1e-5 after the decoder's two layers.
            logit_error=1e-4,
            score_error=1e-4,
            # 1, because a pixel whose sign changes by rounding the embedding to float16 is undecided.
            mask_iou_min=0.98,
            mask_iou_median=0.999,
            # Exact except for the order of sums, which depends on the shapes.
            padding_error=1e-5,
        ),
        # Measured with emulated half precision (docs/precision.md); engines round less often. Error bounds are about
        # five times the largest error of any model, and far below the known failures.
        FP16: Thresholds(
            # Measured 0.010: half precision's spacing between 4 and 8 is 0.004, plus the rounding of a dozen layers.
            embedding_error=0.05,
            # Measured 0.999995; an overflow in the neck gives 0 or NaN.
            embedding_cosine=0.9999,
            embedding_separation=SEPARATION,
            # Measured 0.004 of the largest logit.
            logit_error=0.02,
            # Measured 0.0016.
            score_error=0.01,
            # 1, as above.
            mask_iou_min=0.95,
            mask_iou_median=0.995,
            # 0 in emulation. On a GPU, other shapes may use other kernels, which differ by a rounding or two.
            padding_error=0.005,
        ),
    }
)
