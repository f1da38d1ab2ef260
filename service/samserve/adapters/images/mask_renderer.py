"""Rendering of masks as run lengths, PNG files, polygons or logits."""

from io import BytesIO

from PIL import Image
from pycocotools import mask as coco

from samserve.domain.masks import Mask, run_lengths
from samserve.domain.rendered_mask import LogitsMask, MaskFormat, PngMask, PolygonMask, RenderedMask, RleMask


class PillowMaskRenderer:
    """Implements `MaskRenderer`. pycocotools compresses the run lengths."""

    def render(self, mask: Mask, mask_format: MaskFormat, include_logits: bool = False) -> RenderedMask:
        """Render a mask in the requested form."""
        return RenderedMask(
            _content(mask, mask_format),
            mask.original_size,
            mask.bbox,
            mask.area,
            mask.iou_prediction,
            mask.stability_score,
            LogitsMask.of(mask.low_res_mask) if include_logits else None,
        )


def _content(mask: Mask, mask_format: MaskFormat) -> RleMask | PngMask | PolygonMask | LogitsMask:
    match mask_format:
        case MaskFormat.COCO_RLE:
            return _compressed(mask)
        case MaskFormat.PNG:
            return _png(mask)
        case MaskFormat.POLYGONS:
            return PolygonMask.trace(mask)
        case MaskFormat.LOW_RES_LOGITS:
            return LogitsMask.of(mask.low_res_mask)


def _compressed(mask: Mask) -> RleMask:
    height, width = mask.original_size
    runs = {"size": [height, width], "counts": run_lengths(mask)}
    encoded = coco.frPyObjects(runs, height, width)  # type: ignore[call-overload]
    return RleMask(encoded["counts"])


def _png(mask: Mask) -> PngMask:
    file = BytesIO()
    Image.fromarray(mask.full()).save(file, "PNG")
    return PngMask(file.getvalue())
