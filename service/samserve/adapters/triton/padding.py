"""Prompts padded to few shapes, so that requests for different images become one batch in Triton."""

import numpy as np

from samserve.domain.prompts import PointLabel, PromptBatch

_MIN_POINTS = 2
"""A click with SAM's padding point, or a box: what almost every prompt is."""


def pad_prompts(prompts: PromptBatch) -> PromptBatch:
    """Round the numbers of prompts and of points up to powers of two, from 1 and 2 on.

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
