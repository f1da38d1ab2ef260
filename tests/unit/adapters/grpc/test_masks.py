import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from samserve.adapters.grpc.masks import mask_renderer
from samserve.domain.errors import InvalidPrompt
from samserve.domain.geometry import Size
from samserve.domain.masks import Mask
from samserve.v1 import segmentation_pb2 as pb

LOGITS = np.linspace(-9, 9, 16 * 16, dtype=np.float32).reshape(16, 16)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """A window of blobs, holes and single pixels somewhere in an image."""
    size = Size(draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    height, width = draw(st.integers(0, size.height)), draw(st.integers(0, size.width))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    window = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])) > rng.random((width, height)).T
    top, left = draw(st.integers(0, size.height - height)), draw(st.integers(0, size.width - width))
    return Mask(size, window, top, left, 0.5, 0.25, LOGITS)


def render(mask: Mask, mask_format: pb.MaskFormat.ValueType) -> pb.Mask:
    return mask_renderer(mask_format, include_low_res_masks=False)(mask)


@given(masks())
def test_coco_rle_gives_the_mask_back(mask: Mask) -> None:
    rle = render(mask, pb.MASK_FORMAT_UNSPECIFIED).coco_rle
    decoded = coco.decode({"size": [rle.size.height, rle.size.width], "counts": rle.counts})
    np.testing.assert_array_equal(decoded, mask.full())


@given(masks())
def test_png_gives_the_mask_back(mask: Mask) -> None:
    with Image.open(io.BytesIO(render(mask, pb.MASK_FORMAT_PNG).png)) as png:
        np.testing.assert_array_equal(np.asarray(png) > 0, mask.full())


def fill(polygons: pb.PolygonSet, size: Size) -> npt.NDArray[np.bool_]:
    def filled(ring: pb.Ring, border: int) -> npt.NDArray[np.bool_]:
        points = [(np.array(ring.coordinates).reshape(-1, 2) - 0.5).astype(np.int32)]
        image = np.zeros(size, dtype=np.uint8)
        cv2.fillPoly(image, points, 1)
        cv2.polylines(image, points, True, border)
        return image > 0

    whole = np.zeros(size, dtype=np.bool_)
    for polygon in polygons.polygons:
        region = filled(polygon.exterior, border=1)
        for hole in polygon.holes:
            # A hole's ring runs through the object's pixels around it.
            region &= ~filled(hole, border=0)
        whole |= region
    return whole


@given(masks())
def test_polygons_give_the_mask_back(mask: Mask) -> None:
    polygons = render(mask, pb.MASK_FORMAT_POLYGONS).polygons
    np.testing.assert_array_equal(fill(polygons, mask.original_size), mask.full())


def test_a_ring_with_a_hole_is_one_polygon_through_pixel_centres() -> None:
    window = np.ones((5, 5), dtype=np.bool_)
    window[2, 2] = False
    polygons = render(Mask(Size(20, 20), window, 3, 4, 1.0, 1.0, LOGITS), pb.MASK_FORMAT_POLYGONS).polygons
    (polygon,) = polygons.polygons
    assert sorted(zip(*[iter(polygon.exterior.coordinates)] * 2, strict=True)) == [
        (4.5, 3.5), (4.5, 7.5), (8.5, 3.5), (8.5, 7.5),
    ]  # fmt: skip
    assert len(polygon.holes) == 1


def test_logits_travel_as_float16_and_only_when_asked() -> None:
    mask = Mask(Size(4, 4), np.ones((4, 4), dtype=np.bool_), 0, 0, 1.0, 1.0, LOGITS)
    message = mask_renderer(pb.MASK_FORMAT_LOW_RES_LOGITS, include_low_res_masks=False)(mask)
    values = np.frombuffer(message.low_res_logits.data, "<f2").reshape(16, 16)
    np.testing.assert_allclose(values, LOGITS, rtol=1e-3)
    assert not message.HasField("low_res_mask")
    assert mask_renderer(pb.MASK_FORMAT_PNG, include_low_res_masks=True)(mask).low_res_mask.size == 16


def test_scores_box_and_area_come_with_every_form() -> None:
    mask = Mask(Size(20, 20), np.ones((5, 6), dtype=np.bool_), 3, 4, 0.5, 0.25, LOGITS)
    message = render(mask, pb.MASK_FORMAT_PNG)
    assert (message.iou_prediction, message.stability_score, message.area) == (0.5, 0.25, 30)
    assert message.bbox == pb.Box(x0=4, y0=3, x1=10, y1=8)


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(InvalidPrompt, match="mask_format"):
        render(Mask(Size(1, 1), np.ones((1, 1), np.bool_), 0, 0, 1.0, 1.0, LOGITS), 99)  # type: ignore[arg-type]
