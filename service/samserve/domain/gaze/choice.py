"""Selection of the mask that the person looks at."""

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame
from samserve.domain.low_res_masks import contains, overlap, visible


def looked_at(
    candidates: npt.NDArray[np.float32],
    iou_predictions: npt.NDArray[np.float32],
    frame: ImageFrame,
    point: npt.NDArray[np.float64],
    before: npt.NDArray[np.bool_] | None = None,
) -> int:
    """Index of the candidate with the highest predicted IoU among those that contain the gaze, or among all if none
    does.

    A model is often as certain of a part as of the whole object. While the gaze stays in the previous mask, the
    predicted IoU is therefore multiplied by the overlap with that mask. Otherwise whole and part would alternate
    whenever a frame is encoded.

    Args:
        candidates: float32 logits `[K, M, M]`: whole, part and subpart.
        iou_predictions: float32 `[K]`.
        frame: frame of the candidates.
        point: float64 `[2]`, (x, y) in pixels of the original image.
        before: bool `[M, M]`, the previous mask as seen from this frame.
    """
    hit = np.array([contains(candidate, frame, point) for candidate in candidates])
    scores = np.where(hit | ~hit.any(), iou_predictions, -np.inf)
    if hit.any() and before is not None and contains(before, frame, point):
        overlaps = np.array([overlap(before, visible(candidate, frame)) for candidate in candidates])
        scores = np.where(hit, overlaps * np.maximum(iou_predictions, 0), -np.inf)
    return int(np.argmax(scores))
