"""Pictures of masks for people: the photo with the object tinted and outlined, the prompt, and the scores.

Everything is in the frame of the photo after EXIF orientation: arrays `[H, W, ...]`, coordinates (x, y) in pixels.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

Rgb = tuple[int, int, int]
Picture = npt.NDArray[np.uint8]
"""RGB, uint8 `[H, W, 3]`."""

_OBJECT: Rgb = (38, 139, 255)
_FOREGROUND: Rgb = (39, 190, 98)
_BACKGROUND: Rgb = (228, 67, 61)
_BOX: Rgb = (255, 196, 46)
_WHITE: Rgb = (255, 255, 255)
_DARK: Rgb = (22, 24, 29)

_TINT = 0.42
_SURROUNDINGS = 0.62
"""Brightness that is left outside the object."""

_PANEL_SIDE = 960
"""Longest side of one picture in a panel of several, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskOverlay:
    """One mask to be shown.

    Attributes:
        mask: bool `[H, W]`.
        caption: a few words, such as its score.
    """

    mask: npt.NDArray[np.bool_]
    caption: str


@dataclass(frozen=True, slots=True)
class PromptMarks:
    """What was asked.

    Attributes:
        points: (x, y, label), label 1 foreground or 0 background.
        box: XYXY.
    """

    points: Sequence[tuple[float, float, int]] = ()
    box: tuple[float, float, float, float] | None = None


def read_photo(data: bytes) -> Picture:
    """The pixels of an image file as a person sees them.

    Raises:
        OSError: it is not an image, or broken.
    """
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(upright.convert("RGB"))


def draw_overlays(photo: Picture, overlays: Sequence[MaskOverlay], marks: PromptMarks) -> Picture:
    """The photo with its mask at full size; several masks side by side on smaller copies."""
    if len(overlays) == 1:
        return _draw(photo, overlays[0], marks, scale=1.0)
    scale = min(1.0, _PANEL_SIDE / max(photo.shape[:2]))
    tiles = [_draw(photo, overlay, marks, scale) for overlay in overlays]
    height, gap = tiles[0].shape[0], max(6, round(max(tiles[0].shape) / 80))
    spacer = np.full((height, gap, 3), 255, dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (spacer, tile)][1:], axis=1)


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _draw(photo: Picture, overlay: MaskOverlay, marks: PromptMarks, scale: float) -> Picture:
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    small = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    mask = overlay.mask.astype(np.float32)
    coverage = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
    # One unit is a pixel on a screen that shows the whole picture.
    unit = max(1.0, max(height, width) / 900)
    canvas = _tint(small, coverage)
    _outline(canvas, coverage, unit)
    if marks.box is not None:
        _mark_box(canvas, marks.box, scale, unit)
    for x, y, label in marks.points:
        _mark_point(canvas, (x * scale, y * scale), label, unit)
    return _captioned(canvas, overlay.caption, unit)


def _tint(photo: Picture, coverage: npt.NDArray[np.float32]) -> Picture:
    pixels = photo.astype(np.float32)
    inside = pixels * (1 - _TINT) + np.array(_OBJECT, dtype=np.float32) * _TINT
    blended = pixels * _SURROUNDINGS
    blended += (inside - blended) * coverage[..., None]
    return blended.round().astype(np.uint8)


def _outline(canvas: Picture, coverage: npt.NDArray[np.float32], unit: float) -> None:
    contours, _ = cv2.findContours((coverage > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    line = max(2, round(1.5 * unit))
    cv2.drawContours(canvas, contours, -1, _WHITE, line + max(2, round(unit)), cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, _OBJECT, line, cv2.LINE_AA)


def _mark_box(canvas: Picture, box: Sequence[float], scale: float, unit: float) -> None:
    x0, y0, x1, y1 = (round(value * scale) for value in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _DARK, round(4 * unit), cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX, round(2 * unit), cv2.LINE_AA)


def _mark_point(canvas: Picture, point: tuple[float, float], label: int, unit: float) -> None:
    x, y = round(point[0]), round(point[1])
    arm, stroke = round(4 * unit), max(1, round(1.6 * unit))
    for radius, color in ((10, _DARK), (9, _WHITE), (7, _FOREGROUND if label else _BACKGROUND)):
        cv2.circle(canvas, (x, y), round(radius * unit), color, cv2.FILLED, cv2.LINE_AA)
    cv2.line(canvas, (x - arm, y), (x + arm, y), _WHITE, stroke, cv2.LINE_AA)
    if label:
        cv2.line(canvas, (x, y - arm), (x, y + arm), _WHITE, stroke, cv2.LINE_AA)


def _captioned(canvas: Picture, caption: str, unit: float) -> Picture:
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(size=15 * unit)
    margin, pad = 10 * unit, 7 * unit
    left, top, right, bottom = draw.textbbox((margin + pad, margin + pad), caption, font=font)
    draw.rounded_rectangle((left - pad, top - pad, right + pad, bottom + pad), radius=pad, fill=(*_DARK, 205))
    draw.text((margin + pad, margin + pad), caption, font=font, fill=_WHITE)
    return np.asarray(image)
