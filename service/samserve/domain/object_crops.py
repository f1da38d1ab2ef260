"""Objects cut out for CLIP.

What lies around the object is blurred, not blackened: of the ways to show CLIP a segmented object, blurring all but the
mask did best in Yang et al., Fine-Grained Visual Prompting, NeurIPS 2023, which takes its masks from SAM's generator;
it keeps where the object stands, and CLIP has seen no cut-outs in its training.
"""

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame
from samserve.domain.masks import Mask
from samserve.domain.texts import mask_in_square, square_around

_BLURRED_SIDE = 28
_BLURRED_SIGMA = 2.0
"""Of a copy of the crop, which is blurred in a sixtieth of the time: of a crop's side, a fourteenth."""


def crop_object(pixels: npt.NDArray[np.uint8], frame: ImageFrame, mask: Mask, side: int) -> npt.NDArray[np.uint8]:
    """RGB uint8 `[3, side, side]` of one object. What lies beyond the image's edge is as the edge is.

    Args:
        pixels: uint8 `[3, S, S]` RGB of the whole image, resized by `frame`.
        mask: of the same image, not empty.
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
