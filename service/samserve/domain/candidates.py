"""Filters of SAM's automatic mask generator, which select masks among those of a grid of points.

They run in the order of their cost: predicted IoU; stability and position at full resolution; suppression of duplicates
within each crop and across crops; removal of small regions, and of masks that became duplicates by it. All thresholds
act as in Meta's published generator. Masks without a pixel are dropped; Meta's generator keeps them if a threshold is
0.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.masks import Mask, PackedMask, upsample_mask
from samserve.domain.nms import BoxSuppression, box_nms
from samserve.domain.point_grids import Crop, near_crop_edge, point_grid
from samserve.domain.regions import remove_small_regions

CROP_EDGE_PIXELS = 20.0
"""Distance in pixels within which a mask counts as cut off by its crop's edge: `atol` of SAM's
`is_box_near_crop_edge`."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A mask that passed the filters.

    Attributes:
        packed: the mask in the whole image.
        box: float64 `[4]` XYXY in the image, see `pixel_box`.
        point: (x, y) of the click that gave it, in the image.
        crop_box: the part of the image that was searched.
    """

    packed: PackedMask
    box: npt.NDArray[np.float64]
    point: tuple[float, float]
    crop_box: CropBox

    @property
    def iou_prediction(self) -> float:
        """Predicted IoU of the mask."""
        return self.packed.mask.iou_prediction


def pixel_box(mask: Mask) -> npt.NDArray[np.float64]:
    """Box XYXY from the first to the last pixel of a mask; right and bottom are one less than in `Mask.bbox`.

    SAM's generator compares such boxes.
    """
    return np.array(mask.bbox) - (0.0, 0.0, 1.0, 1.0)


class CropSearch:
    """Collects the candidates of one crop.

    Attributes:
        candidates: in the order of the points.
        held_bytes: what their pixels take.

    Args:
        frame: how the crop lies in the model's input.
    """

    def __init__(self, parameters: AutomaticMaskParameters, crop: Crop, frame: ImageFrame, original_size: Size) -> None:
        self.candidates: list[Candidate] = []
        self.held_bytes = 0
        self._parameters = parameters
        self._crop = crop
        self._frame = frame
        self._original_size = original_size

    def batches(self) -> Iterator[npt.NDArray[np.float64]]:
        """Batches of the grid's points, `[points_per_batch, 2]` (x, y) in pixels of the crop."""
        grid = point_grid(self._parameters.layer_points_per_side(self._crop.layer))
        points = grid * (self._frame.original_size.width, self._frame.original_size.height)
        size = self._parameters.points_per_batch
        for start in range(0, len(points), size):
            yield points[start : start + size]

    def add(
        self,
        points: npt.NDArray[np.float64],
        low_res_masks: npt.NDArray[np.float32],
        iou_predictions: npt.NDArray[np.float32],
    ) -> None:
        """Filter the masks of points `[P, 2]`: logits `[P, K, M, M]` and predicted IoUs `[P, K]`."""
        threshold = self._parameters.pred_iou_thresh
        passed = iou_predictions > threshold if threshold > 0 else np.ones_like(iou_predictions, dtype=np.bool_)
        for row, column in np.argwhere(passed):
            iou = float(iou_predictions[row, column])
            candidate = self._candidate(points[row], low_res_masks[row, column], iou)
            if candidate is not None:
                self.candidates.append(candidate)
                self.held_bytes += len(candidate.packed.pixels)

    def _candidate(
        self, point: npt.NDArray[np.float64], low_res_mask: npt.NDArray[np.float32], iou: float
    ) -> Candidate | None:
        in_crop = upsample_mask(low_res_mask, iou, self._frame, self._parameters.stability_score_offset)
        if in_crop.stability_score < self._parameters.stability_score_thresh or not in_crop.window.any():
            return None
        left, top = self._crop.box[:2]
        mask = replace(in_crop, original_size=self._original_size, top=in_crop.top + top, left=in_crop.left + left)
        box = pixel_box(mask)
        if near_crop_edge(box, self._crop.box, self._original_size, CROP_EDGE_PIXELS):
            return None
        where = (float(point[0]) + left, float(point[1]) + top)
        return Candidate(PackedMask.pack(mask), box, where, self._crop.box)


class Acceptance:
    """Decides which candidates are duplicates, crop by crop, in the order of `crop_layers`.

    Args:
        several_crops: whether there is more than one.
    """

    def __init__(self, parameters: AutomaticMaskParameters, several_crops: bool) -> None:
        self._parameters = parameters
        self._across_crops = BoxSuppression(parameters.crop_nms_thresh) if several_crops else None
        self._cleaned = BoxSuppression(max(parameters.box_nms_thresh, parameters.crop_nms_thresh))
        self._changed: list[Candidate] = []

    def of_crop(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates of one crop that are not duplicates, highest predicted IoU first."""
        boxes = np.array([candidate.box for candidate in candidates]).reshape(-1, 4)
        scores = np.array([candidate.iou_prediction for candidate in candidates])
        chosen = [candidates[index] for index in box_nms(boxes, scores, self._parameters.box_nms_thresh)]
        if self._across_crops is None:
            return chosen
        return [candidate for candidate in chosen if self._across_crops.keeps(candidate.box)]

    def accepts(self, candidate: Candidate) -> bool:
        """Return True if the mask is accepted unchanged. Masks that lose small regions are decided at the end.

        Unchanged masks take precedence over changed ones, so duplicates among changed masks are known only at the
        end.
        """
        if not self._parameters.min_mask_region_area:
            return True
        mask = candidate.packed.unpack()
        cleaned = remove_small_regions(mask, self._parameters.min_mask_region_area)
        if cleaned is mask:
            return self._cleaned.keeps(candidate.box)
        self._changed.append(replace(candidate, packed=PackedMask.pack(cleaned), box=pixel_box(cleaned)))
        return False

    def changed(self) -> list[Candidate]:
        """The masks that lost small regions, without duplicates of other masks."""
        return [candidate for candidate in self._changed if self._cleaned.keeps(candidate.box)]
