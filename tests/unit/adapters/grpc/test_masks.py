from typing import cast

import numpy as np
import pytest

from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.domain.errors import InvalidPrompt
from samserve.domain.geometry import Size
from samserve.domain.prompts import CoordinateSpace
from samserve.domain.rendered_mask import (
    LogitsMask,
    MaskFormat,
    PngMask,
    Polygon,
    PolygonMask,
    RenderedMask,
    RleMask,
)
from samserve.v1 import segmentation_pb2 as pb

LOGITS = np.linspace(-9, 9, 16 * 16, dtype=np.float16).reshape(16, 16)
RLE = RleMask(b"04")
CORNERS = np.array([[4.5, 3.5], [4.5, 7.5], [8.5, 7.5], [8.5, 3.5]])


def message(content: RleMask | PngMask | PolygonMask | LogitsMask = RLE, logits: LogitsMask | None = None) -> pb.Mask:
    return mask_message(RenderedMask(content, Size(20, 30), (4.0, 3.0, 10.0, 8.0), 30, 0.5, 0.25, logits))


def test_scores_box_and_area_come_with_every_form() -> None:
    for content in (RleMask(b"04"), PngMask(b"png"), PolygonMask([]), LogitsMask(LOGITS)):
        written = message(content)
        assert (written.iou_prediction, written.stability_score, written.area) == (0.5, 0.25, 30)
        assert written.bbox == pb.Box(x0=4, y0=3, x1=10, y1=8)


def test_a_normalized_box_is_a_fraction_of_the_mask() -> None:
    mask = RenderedMask(RLE, Size(20, 40), (4.0, 3.0, 10.0, 20.0), 30, 0.5, 0.25, None)
    assert mask_message(mask, CoordinateSpace.PIXELS).bbox == pb.Box(x0=4, y0=3, x1=10, y1=20)
    assert mask_message(mask, CoordinateSpace.NORMALIZED).bbox == pb.Box(x0=0.1, y0=0.15, x1=0.25, y1=1)


def test_each_form_has_its_field() -> None:
    assert message(RleMask(b"04")).coco_rle == pb.CocoRle(counts=b"04", size=pb.Size(height=20, width=30))
    assert message(PngMask(b"png")).png == b"png"
    assert message(PolygonMask([])).WhichOneof("form") == "polygons"
    ring = pb.Ring(coordinates=CORNERS.reshape(-1))
    outlined = message(PolygonMask([Polygon(CORNERS, [CORNERS])]))
    assert list(outlined.polygons.polygons) == [pb.Polygon(exterior=ring, holes=[ring])]


def test_logits_travel_as_float16_and_only_when_asked() -> None:
    written = message(LogitsMask(LOGITS)).low_res_logits
    np.testing.assert_array_equal(np.frombuffer(written.data, "<f2").reshape(written.size, written.size), LOGITS)
    assert not message().HasField("low_res_mask")
    assert message(logits=LogitsMask(LOGITS)).low_res_mask == written


def test_run_lengths_are_the_default() -> None:
    assert read_mask_format(pb.MASK_FORMAT_UNSPECIFIED) is MaskFormat.COCO_RLE


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(InvalidPrompt, match="mask_format: unknown mask_format 99"):
        read_mask_format(cast("pb.MaskFormat.ValueType", 99))
