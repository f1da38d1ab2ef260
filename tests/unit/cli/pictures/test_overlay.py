"""Overlays lie on the photo as a person sees it, and show the mask where it is."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samserve.cli.pictures.marks import PromptMarks
from samserve.cli.pictures.overlay import (
    MaskOverlay,
    ObjectOverlay,
    draw_objects,
    draw_overlays,
)
from samserve.cli.pictures.photo import read_photo


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_the_object_is_tinted_and_its_surroundings_are_dimmed() -> None:
    photo = np.full((200, 300, 3), 120, dtype=np.uint8)
    mask = np.zeros((200, 300), dtype=bool)
    mask[80:180, 100:280] = True
    picture = draw_overlays(photo, [MaskOverlay(mask, "IoU 0.93")], PromptMarks())
    assert picture.shape == photo.shape
    inside, outside = picture[130, 190].astype(int), picture[190, 20].astype(int)
    assert inside[2] > inside[0] + 30
    assert outside.max() < 90
    assert outside.max() == outside.min()


def test_points_are_green_on_the_object_and_red_beside_it() -> None:
    photo = np.full((300, 300, 3), 120, dtype=np.uint8)
    marks = PromptMarks([(200.0, 100.0, 1), (100.0, 200.0, 0)], box=(50, 60, 250, 260))
    picture = draw_overlays(photo, [MaskOverlay(np.zeros((300, 300), dtype=bool), "")], marks).astype(int)
    foreground, background = picture[105, 205], picture[205, 105]
    assert foreground[1] > foreground[0] + 60
    assert background[0] > background[1] + 60
    assert picture[150, 50, 0] > picture[150, 50, 2] + 100


def test_several_masks_stand_side_by_side_on_smaller_copies() -> None:
    photo = np.zeros((1000, 2000, 3), dtype=np.uint8)
    overlays = [MaskOverlay(np.zeros((1000, 2000), dtype=bool), str(n)) for n in range(3)]
    picture = draw_overlays(photo, overlays, PromptMarks([(1000.0, 500.0, 1)]))
    assert picture.shape[0] == 480
    assert picture.shape[1] == pytest.approx(3 * 960, abs=40)


def test_a_mask_that_covers_everything_and_a_photo_of_one_pixel_can_be_drawn() -> None:
    picture = draw_overlays(
        np.zeros((1, 1, 3), dtype=np.uint8), [MaskOverlay(np.ones((1, 1), dtype=bool), "x")], PromptMarks()
    )
    assert picture.shape == (1, 1, 3)


def test_a_turned_photo_is_drawn_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read_photo(encoded(Image.new("RGB", (30, 20), "red"), "JPEG", exif=exif))
    assert photo.shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGB", (2, 2), (1, 2, 3)).convert("P"), None),
        (Image.fromarray(np.full((2, 2), 0x4D00, dtype=np.uint16)), (77, 77, 77)),
    ],
    ids=["grey", "transparent", "palette", "16-bit"],
)
def test_photos_of_every_kind_are_drawn_in_rgb(image: Image.Image, pixel: tuple[int, int, int] | None) -> None:
    photo = read_photo(encoded(image))
    assert photo.shape == (2, 2, 3)
    assert photo.dtype == np.uint8
    assert pixel is None or tuple(photo[0, 0]) == pixel


def test_a_file_that_is_no_image_is_an_os_error() -> None:
    with pytest.raises(OSError, match="cannot be read: unsupported image format"):
        read_photo(b"no image")


def test_objects_have_colors_of_their_own_and_later_ones_lie_on_top() -> None:
    photo = np.full((200, 300, 3), 120, dtype=np.uint8)
    large, small = np.zeros((200, 300), dtype=bool), np.zeros((200, 300), dtype=bool)
    large[20:180, 20:200] = True
    small[60:100, 60:120] = True
    picture = draw_objects(photo, iter([ObjectOverlay(large), ObjectOverlay(small)])).astype(int)
    on_large, on_small, outside = picture[150, 150], picture[80, 90], picture[10, 250]
    assert np.abs(on_large - on_small).max() > 60
    assert outside.max() < 90
    # A rim in the full color, darker than nothing inside, and a dark line between the two.
    assert picture[60, 80].max() < 60
    assert np.abs(picture[62, 80] - on_small).max() > 30


def test_objects_bring_their_boxes_and_captions() -> None:
    photo = np.full((300, 300, 3), 120, dtype=np.uint8)
    nothing = np.zeros((300, 300), dtype=bool)
    plain = draw_objects(photo, [ObjectOverlay(nothing)])
    boxed = draw_objects(photo, [ObjectOverlay(nothing, (50, 60, 250, 260))])
    captioned = draw_objects(photo, [ObjectOverlay(nothing, (50, 60, 250, 260), "17  0.93")])
    assert plain.min() == plain.max()
    assert (boxed != plain)[60:261, 50].any(axis=1).all()
    assert (captioned != boxed)[62:85, 55:120].any()
    assert not (captioned != boxed)[120:].any()


def test_many_objects_on_a_photo_of_one_pixel_can_be_drawn() -> None:
    photo = np.zeros((1, 1, 3), dtype=np.uint8)
    assert draw_objects(photo, [ObjectOverlay(np.ones((1, 1), dtype=bool))] * 3).shape == (1, 1, 3)
    assert draw_objects(photo, []).shape == (1, 1, 3)


def test_a_photo_that_the_server_refuses_is_an_os_error() -> None:
    with pytest.raises(OSError, match="samples up to 70000"):
        read_photo(encoded(Image.new("I", (2, 2), 70_000), "TIFF"))
