"""Rendered masks, read back."""

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from samserve.domain.rendered_mask import RenderedMask, RleMask


def pixels(mask: RenderedMask) -> npt.NDArray[np.bool_]:
    """The mask bool `[H, W]`, of one that was rendered as COCO's run lengths."""
    assert isinstance(mask.content, RleMask)
    height, width = mask.original_size
    return np.asarray(coco.decode({"size": [height, width], "counts": mask.content.counts})) > 0
