"""Connected components, by OpenCV."""

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.regions import ConnectedComponents


class OpenCvComponentLabeler:
    """Implements `ComponentLabeler`."""

    def label(self, mask: npt.NDArray[np.bool_]) -> ConnectedComponents:
        """See `ComponentLabeler.label`."""
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        return ConnectedComponents(
            np.asarray(labels, dtype=np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], dtype=np.int64)
        )
