"""Padding of prompts to a few shapes, so that Triton can batch requests for different images."""

import numpy as np

from samserve.domain.prompts import PointLabel, PromptBatch

_MIN_POINTS = 2
"""A point with SAM's padding point, or a box: the shape of almost every prompt."""


def pad_prompts(prompts: PromptBatch) -> PromptBatch:
    """Pad the numbers of prompts and of points to powers of two, starting from 1 and 2.

    The decoder masks padding out of attention, so that the prompts' own results are those without it.
    """
    count, points = prompts.point_labels.shape
    more, longer = _power_of_two(count) - count, _power_of_two(max(points, _MIN_POINTS)) - points
    if not more and not longer:
        return prompts
    return PromptBatch(
        np.pad(prompts.point_coords, ((0, more), (0, longer), (0, 0))),
        np.pad(prompts.point_labels, ((0, more), (0, longer)), constant_values=int(PointLabel.BATCH_PADDING)),
        np.pad(prompts.mask_input, ((0, more), (0, 0), (0, 0))) if more else prompts.mask_input,
        np.pad(prompts.has_mask_input, (0, more)),
    )


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
