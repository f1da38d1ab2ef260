import io

import cv2
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain.geometry import Size
from samserve.domain.masks import Mask
from samserve.domain.rendered_mask import LogitsMask, MaskFormat, PngMask, PolygonMask, RenderedMask, Ring
from tests.support.rendered import pixels

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


def render(mask: Mask, mask_format: MaskFormat, include_logits: bool = False) -> RenderedMask:
    return PillowMaskRenderer().render(mask, mask_format, include_logits)


def outline(mask: Mask) -> PolygonMask:
    content = render(mask, MaskFormat.POLYGONS).content
    assert isinstance(content, PolygonMask)
    return content


@given(masks())
def test_coco_rle_gives_the_mask_back(mask: Mask) -> None:
    np.testing.assert_array_equal(pixels(render(mask, MaskFormat.COCO_RLE)), mask.full())


@given(masks())
def test_png_gives_the_mask_back(mask: Mask) -> None:
    content = render(mask, MaskFormat.PNG).content
    assert isinstance(content, PngMask)
    with Image.open(io.BytesIO(content.data)) as png:
        np.testing.assert_array_equal(np.asarray(png) > 0, mask.full())


def fill(mask: PolygonMask, size: Size) -> npt.NDArray[np.bool_]:
    def filled(ring: Ring, border: int) -> npt.NDArray[np.bool_]:
        points = [np.rint(ring - 0.5).astype(np.int32)]
        image = np.zeros(size, dtype=np.uint8)
        cv2.fillPoly(image, points, 1)
        cv2.polylines(image, points, True, border)
        return image > 0

    whole = np.zeros(size, dtype=np.bool_)
    for polygon in mask.polygons:
        region = filled(polygon.exterior, border=1)
        for hole in polygon.holes:
            # A hole's ring runs through the object's pixels around it.
            region &= ~filled(hole, border=0)
        whole |= region
    return whole


@given(masks())
def test_polygons_give_the_mask_back(mask: Mask) -> None:
    np.testing.assert_array_equal(fill(outline(mask), mask.original_size), mask.full())


def test_a_ring_with_a_hole_is_one_polygon_through_pixel_centres() -> None:
    window = np.ones((5, 5), dtype=np.bool_)
    window[2, 2] = False
    (polygon,) = outline(Mask(Size(20, 20), window, 3, 4, 1.0, 1.0, LOGITS)).polygons
    assert sorted(polygon.exterior.tolist()) == [[4.5, 3.5], [4.5, 7.5], [8.5, 3.5], [8.5, 7.5]]
    assert len(polygon.holes) == 1


def test_logits_are_float16_within_its_range_and_only_there_when_asked_for() -> None:
    logits = np.where(LOGITS > 8, np.float32(1e6), LOGITS)
    mask = Mask(Size(4, 4), np.ones((4, 4), dtype=np.bool_), 0, 0, 1.0, 1.0, logits)
    rendered = render(mask, MaskFormat.LOW_RES_LOGITS)
    assert isinstance(rendered.content, LogitsMask)
    assert rendered.content.values.dtype == np.float16
    np.testing.assert_allclose(rendered.content.values, np.minimum(logits, 65504), rtol=1e-3)
    assert rendered.logits is None
    beside = render(mask, MaskFormat.PNG, include_logits=True).logits
    assert beside is not None
    np.testing.assert_array_equal(beside.values, rendered.content.values)


def test_scores_box_and_area_come_with_every_form() -> None:
    mask = Mask(Size(20, 20), np.ones((5, 6), dtype=np.bool_), 3, 4, 0.5, 0.25, LOGITS)
    for mask_format in MaskFormat:
        rendered = render(mask, mask_format)
        assert (rendered.iou_prediction, rendered.stability_score, rendered.area) == (0.5, 0.25, 30)
        assert (rendered.original_size, rendered.bbox) == ((20, 20), (4, 3, 10, 8))


@given(masks())
def test_rings_have_three_points_and_an_inside_where_an_object_is_a_pixel_or_a_line(mask: Mask) -> None:
    for polygon in outline(mask).polygons:
        for ring in (polygon.exterior, *polygon.holes):
            assert len(ring) >= 3
            assert ring.min() > 0
            assert (ring.max(axis=0) < [mask.original_size.width, mask.original_size.height]).all()
    pixel = Mask(Size(9, 9), np.ones((1, 1), np.bool_), 4, 2, 0.5, 0.25, LOGITS)
    line = Mask(Size(9, 9), np.eye(3, dtype=np.bool_), 4, 2, 0.5, 0.25, LOGITS)
    for thin, area in ((pixel, 1), (line, 3)):
        (polygon,) = outline(thin).polygons
        np.testing.assert_allclose(cv2.contourArea(polygon.exterior.astype(np.float32)), area, rtol=0.7)
