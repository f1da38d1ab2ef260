"""Crops of objects for CLIP.

The surroundings of the object are blurred, not blacked out. Of the ways to show CLIP a segmented object, blurring
everything but the mask performed best in Yang et al., Fine-Grained Visual Prompting, NeurIPS 2023, which takes its
masks from SAM's generator. It keeps the context of the object, and CLIP was not trained on cut-outs.
"""

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame
from samserve.domain.masks import Mask
from samserve.domain.texts import mask_in_square, square_around

_BLURRED_SIDE = 28
_BLURRED_SIGMA = 2.0
"""Standard deviation, in pixels of a reduced copy of the crop: a fourteenth of a crop's side. Blurring the copy takes a
sixtieth of the time."""


def crop_object(pixels: npt.NDArray[np.uint8], frame: ImageFrame, mask: Mask, side: int) -> npt.NDArray[np.uint8]:
    """Cut out one object as RGB uint8 `[3, side, side]`. Beyond the image's edge, the edge's pixels are repeated.

    Args:
        pixels: uint8 `[3, S, S]` RGB of the whole image, resized by `frame`.
        mask: mask of the same image, not empty.
    """
    square = square_around(mask, frame)
    height, width = frame.input_size
    rows = np.clip((square.y0, square.y1), 0, height)
    columns = np.clip((square.x0, square.x1), 0, width)
    inside = pixels[:, rows[0] : rows[1], columns[0] : columns[1]].transpose(1, 2, 0)
    whole = cv2.copyMakeBorder(
        np.ascontiguousarray(inside),
        int(rows[0]) - square.y0,
        square.y1 - int(rows[1]),
        int(columns[0]) - square.x0,
        square.x1 - int(columns[1]),
        cv2.BORDER_REPLICATE,
    )
    shrinks = square.size.height > side
    sharp = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    small = cv2.resize(sharp, (_BLURRED_SIDE, _BLURRED_SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _BLURRED_SIGMA)
    blurred = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
    objects = mask_in_square(mask, frame, square, side)
    crop: npt.NDArray[np.uint8] = np.where(objects[:, :, None], sharp, blurred).transpose(2, 0, 1)
    return crop
