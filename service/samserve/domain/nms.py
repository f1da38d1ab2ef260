"""Non-maximum suppression of boxes: of boxes that overlap too much, the one with the highest score is kept.

The greedy rule of torchvision's `nms`, as in Meta's generator: in the order of decreasing scores (ties in the given
order), a box is dropped if its IoU with a kept box exceeds the threshold. Later boxes never change earlier decisions,
so boxes may also arrive one by one in that order.
"""

import numpy as np
import numpy.typing as npt

_GROWTH = 2
_INITIAL_ROOM = 64


class BoxSuppression:
    """Decides on boxes that arrive in the order of decreasing scores.

    Args:
        iou_threshold: largest IoU of two boxes that are both kept.
    """

    def __init__(self, iou_threshold: float) -> None:
        self._iou_threshold = iou_threshold
        self._kept = np.empty((_INITIAL_ROOM, 4))
        self._count = 0

    def keeps(self, box: npt.NDArray[np.float64]) -> bool:
        """Return True if this box, float64 `[4]` XYXY, is kept. It then suppresses others."""
        if (box_ious(box, self._kept[: self._count]) > self._iou_threshold).any():
            return False
        if self._count == len(self._kept):
            self._kept = np.resize(self._kept, (_GROWTH * self._count, 4))
        self._kept[self._count] = box
        self._count += 1
        return True


def box_ious(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of one box `[4]` XYXY with each of `[N, 4]`; 0 if both have no area."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared
    ious: npt.NDArray[np.float64] = np.divide(shared, union, out=np.zeros(len(others)), where=union > 0)
    return ious


def box_nms(boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.floating], iou_threshold: float) -> list[int]:
    """Indices of the boxes `[N, 4]` that are kept, in the order of decreasing scores `[N]`."""
    suppression = BoxSuppression(iou_threshold)
    return [int(index) for index in np.argsort(-scores, kind="stable") if suppression.keeps(boxes[index])]
