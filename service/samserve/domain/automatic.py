"""Parameters of automatic mask generation, with SAM's names and defaults."""

import math
from dataclasses import dataclass, fields

from samserve.domain.errors import InvalidParameter
from samserve.domain.masks import STABILITY_SCORE_OFFSET
from samserve.domain.point_grids import layer_points_per_side

MAX_POINTS_PER_SIDE = 64
"""One point for each cell of SAM's embedding."""

MAX_POINTS_PER_BATCH = 64
"""SAM's default. It limits the logits that one request holds at a time, 64 MiB with SAM."""

MAX_CROP_LAYERS = 3
MAX_POINTS = 32_768
"""Largest number of points of one request, over all crops."""

MAX_OFFSET = 100.0
_CROPS_PER_LAYER = 4


@dataclass(frozen=True, slots=True)
class AutomaticMaskParameters:
    """Parameters of SAM's `SamAutomaticMaskGenerator`.

    Attributes:
        points_per_side: of the grid over the whole image.
        points_per_batch: how many points are decoded at a time; the masks do not depend on it.
        pred_iou_thresh: masks whose predicted IoU is not above it are dropped; 0 keeps all.
        stability_score_thresh: masks whose stability score is below it are dropped; 0 keeps all.
        stability_score_offset: how far, in logits, the threshold is moved either way for the stability score.
        box_nms_thresh: box IoU above which two masks of one crop are duplicates.
        crop_n_layers: layers of crops beside the whole image; layer i has 4^i, each encoded as an image of its own.
        crop_nms_thresh: box IoU above which masks of different crops are duplicates.
        crop_overlap_ratio: share of the image's shorter side that neighbours of the first crop layer have in common.
        crop_n_points_downscale_factor: points_per_side is divided by it once for each layer.
        min_mask_region_area: holes and separate regions smaller than this many pixels are removed; 0 leaves them.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = STABILITY_SCORE_OFFSET
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0

    def check(self) -> None:
        """Reject invalid values and values beyond the limits.

        Raises:
            InvalidParameter: names the parameter.
        """
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _RANGES[field.name]
            if not low <= value <= high:
                raise InvalidParameter(field.name, f"must be between {low:g} and {high:g}, got {value:g}")
        if not self.layer_points_per_side(self.crop_n_layers):
            raise InvalidParameter(
                "crop_n_points_downscale_factor",
                f"too large: leaves no point in crop layer {self.crop_n_layers}; lower it or raise points_per_side",
            )
        points = sum(
            _CROPS_PER_LAYER**layer * self.layer_points_per_side(layer) ** 2 for layer in range(self.crop_n_layers + 1)
        )
        if points > MAX_POINTS:
            raise InvalidParameter(
                "crop_n_layers",
                f"needs {points} points, the limit is {MAX_POINTS}; raise crop_n_points_downscale_factor",
            )

    def layer_points_per_side(self, layer: int) -> int:
        """Number of points on each side of the grid of a crop in this layer."""
        return layer_points_per_side(self.points_per_side, layer, self.crop_n_points_downscale_factor)


_RANGES: dict[str, tuple[float, float]] = {
    "points_per_side": (1, MAX_POINTS_PER_SIDE),
    "points_per_batch": (1, MAX_POINTS_PER_BATCH),
    "pred_iou_thresh": (0, 1),
    "stability_score_thresh": (0, 1),
    "stability_score_offset": (0, MAX_OFFSET),
    "box_nms_thresh": (0, 1),
    "crop_n_layers": (0, MAX_CROP_LAYERS),
    "crop_nms_thresh": (0, 1),
    "crop_overlap_ratio": (0, 1),
    "crop_n_points_downscale_factor": (1, MAX_POINTS_PER_SIDE),
    "min_mask_region_area": (0, math.inf),
}
