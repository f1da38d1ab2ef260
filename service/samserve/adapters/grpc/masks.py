"""Conversion between masks of the API and of the domain."""

from samserve.domain.errors import InvalidPrompt
from samserve.domain.prompts import CoordinateSpace
from samserve.domain.rendered_mask import (
    LogitsMask,
    MaskFormat,
    PngMask,
    Polygon,
    PolygonMask,
    RenderedMask,
    Ring,
    RleMask,
)
from samserve.v1 import segmentation_pb2 as pb

_FORMATS = {
    pb.MASK_FORMAT_UNSPECIFIED: MaskFormat.COCO_RLE,
    pb.MASK_FORMAT_COCO_RLE: MaskFormat.COCO_RLE,
    pb.MASK_FORMAT_PNG: MaskFormat.PNG,
    pb.MASK_FORMAT_POLYGONS: MaskFormat.POLYGONS,
    pb.MASK_FORMAT_LOW_RES_LOGITS: MaskFormat.LOW_RES_LOGITS,
}


def read_mask_format(mask_format: pb.MaskFormat.ValueType) -> MaskFormat:
    """The mask format of a request; COCO RLE if it names none.

    Raises:
        InvalidPrompt: the format is unknown.
    """
    if mask_format not in _FORMATS:
        raise InvalidPrompt(
            "mask_format", f"unknown mask_format {mask_format}; expected COCO_RLE, PNG, POLYGONS or LOW_RES_LOGITS"
        )
    return _FORMATS[mask_format]


def mask_message(mask: RenderedMask, coordinate_space: CoordinateSpace = CoordinateSpace.PIXELS) -> pb.Mask:
    """Convert a rendered mask to a message.

    Args:
        coordinate_space: of `bbox`.
    """
    height, width = mask.original_size if coordinate_space is CoordinateSpace.NORMALIZED else (1, 1)
    x0, y0, x1, y1 = mask.bbox
    message = pb.Mask(
        iou_prediction=mask.iou_prediction,
        stability_score=mask.stability_score,
        bbox=pb.Box(x0=x0 / width, y0=y0 / height, x1=x1 / width, y1=y1 / height),
        area=mask.area,
        low_res_mask=_logits(mask.logits) if mask.logits is not None else None,
    )
    match mask.content:
        case RleMask(counts):
            height, width = mask.original_size
            message.coco_rle.counts = counts
            message.coco_rle.size.height, message.coco_rle.size.width = height, width
        case PngMask(data):
            message.png = data
        case PolygonMask(polygons):
            message.polygons.SetInParent()
            message.polygons.polygons.extend(map(_polygon, polygons))
        case LogitsMask():
            message.low_res_logits.CopyFrom(_logits(mask.content))
    return message


def _polygon(polygon: Polygon) -> pb.Polygon:
    return pb.Polygon(exterior=_ring(polygon.exterior), holes=map(_ring, polygon.holes))


def _ring(ring: Ring) -> pb.Ring:
    return pb.Ring(coordinates=ring.reshape(-1).tolist())


def _logits(logits: LogitsMask) -> pb.LowResMask:
    return pb.LowResMask(data=logits.values.astype("<f2", copy=False).tobytes(), size=len(logits.values))
