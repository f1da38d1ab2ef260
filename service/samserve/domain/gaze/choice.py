"""Which of the masks around a gaze is the one looked at."""

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
    """Index of the most certain candidate that the gaze is in; of all, where it is in none.

    A model is often as sure of a part as of the whole. So while the gaze is still in what was looked at before,
    certainty counts by the overlap with that: else the two would change places whenever a frame is encoded.

    Args:
        candidates: float32 logits `[K, M, M]`: whole, part and subpart.
        iou_predictions: float32 `[K]`.
        frame: of the candidates.
        point: float64 `[2]`, (x, y) pixels of the original image.
        before: bool `[M, M]`, what was looked at before, as this frame shows it.
    """
    hit = np.array([contains(candidate, frame, point) for candidate in candidates])
    scores = np.where(hit | ~hit.any(), iou_predictions, -np.inf)
    if hit.any() and before is not None and contains(before, frame, point):
        overlaps = np.array([overlap(before, visible(candidate, frame)) for candidate in candidates])
        scores = np.where(hit, overlaps * np.maximum(iou_predictions, 0), -np.inf)
    return int(np.argmax(scores))
