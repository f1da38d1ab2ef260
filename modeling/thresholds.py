"""What the parity gate demands, for each precision in one place, with reasons."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modeling.precision import FP16, FP32, Precision


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds on the figures of the same name in `ParityFigures`: upper ones for errors, lower ones for the others."""

    embedding_error: float
    embedding_cosine: float
    embedding_separation: float
    logit_error: float
    score_error: float
    mask_iou_min: float
    mask_iou_median: float
    padding_error: float


# Different images are at least a tenth apart; a broken encoder that answers alike to all is at 0.
SEPARATION = 0.02

THRESHOLDS: Mapping[Precision, Thresholds] = MappingProxyType(
    {
        FP32: Thresholds(
            # Half of float16's spacing between 8 and 16 is 0.004: rounding the output, and as much for arithmetic.
            embedding_error=0.008,
            # Rounding to float16 alone leaves 0.9999999; swapped colours or a missing normalisation less than 0.99.
            embedding_cosine=0.9999,
            embedding_separation=SEPARATION,
            # Float32 sums in another order: 1e-6 to 1e-5 after the decoder's two layers.
            logit_error=1e-4,
            score_error=1e-4,
            # 1: what rounding the embedding to float16 takes across 0 is undecided in the first place.
            mask_iou_min=0.98,
            mask_iou_median=0.999,
            # Exact but for the order of sums, which depends on the shapes.
            padding_error=1e-5,
        ),
        # Measured with emulated half precision (docs/precision.md), engines round less often. Errors: about five times
        # what the worst of the models showed, and far from what the known failures leave.
        FP16: Thresholds(
            # 0.010: half precision's spacing between 4 and 8 is 0.004, and a dozen layers' rounding.
            embedding_error=0.05,
            # 0.999995; an overflow in the neck leaves 0 or what is not a number.
            embedding_cosine=0.9999,
            embedding_separation=SEPARATION,
            # 0.004 of the largest logit.
            logit_error=0.02,
            # 0.0016.
            score_error=0.01,
            # 1, as above.
            mask_iou_min=0.95,
            mask_iou_median=0.995,
            # 0 as emulated. On a GPU other shapes may take other kernels, which differ by a rounding or two.
            padding_error=0.005,
        ),
    }
)
