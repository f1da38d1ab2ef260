"""Baselines without a model: classical segmentation with the same prompts."""

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

SCALES = (100.0, 300.0, 800.0)


def felzenszwalb_regions(image: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Label maps [H, W] at a fine, a middle and a coarse scale."""
    return [felzenszwalb(image, scale=scale, sigma=0.8, min_size=50) for scale in SCALES]


def region_at(regions: list[NDArray[np.int64]], point: tuple[float, float]) -> list[NDArray[np.bool_]]:
    """The regions under a point (x, y): one mask [H, W] per scale."""
    x, y = int(point[0]), int(point[1])
    return [labels == labels[y, x] for labels in regions]


def grabcut(image: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """GrabCut [H, W] from a box XYXY; the box itself if GrabCut finds nothing."""
    x0, y0, x1, y1 = (int(value) for value in box)
    inside = np.zeros(image.shape[:2], dtype=bool)
    inside[y0:y1, x0:x1] = True
    if inside.all():
        return inside
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(
            image, mask, (x0, y0, x1 - x0, y1 - y0), np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT
        )
    except cv2.error:
        # Boxes with too few colours to fit a mixture.
        return inside
    found = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return found if found.any() else inside
