"""Overlays: the photo with the object tinted and outlined, the prompt, and the scores.

Everything is in the frame of the photo after EXIF orientation: arrays `[H, W, ...]`, coordinates (x, y) in pixels.
"""

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from samserve.cli.pictures.marks import PromptMarks
from samserve.cli.pictures.photo import Picture

Rgb = tuple[int, int, int]
_OBJECT: Rgb = (38, 139, 255)
_FOREGROUND: Rgb = (39, 190, 98)
_BACKGROUND: Rgb = (228, 67, 61)
_BOX: Rgb = (255, 196, 46)
_WHITE: Rgb = (255, 255, 255)
_DARK: Rgb = (22, 24, 29)

_TINT = 0.42
_OBJECT_TINT = 0.45
_SURROUNDINGS = 0.62
"""Brightness outside the object, relative to the photo."""

_PANEL_SIDE = 960
"""Longest side in pixels of one picture in a panel of several."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskOverlay:
    """One mask to be shown.

    Attributes:
        mask: bool `[H, W]`.
        caption: a few words, such as its score.
    """

    mask: npt.NDArray[np.bool_]
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class ObjectOverlay:
    """One of many objects in a picture.

    Attributes:
        mask: bool `[H, W]`.
        box: XYXY of the prompt, where it was one.
        caption: what it is.
    """

    mask: npt.NDArray[np.bool_]
    box: tuple[float, float, float, float] | None = None
    caption: str = ""


def draw_overlays(photo: Picture, overlays: Sequence[MaskOverlay], marks: PromptMarks) -> Picture:
    """Draw one mask on the photo at full size, or several masks side by side on smaller copies."""
    if len(overlays) == 1:
        return _draw(photo, overlays[0], marks, scale=1.0)
    scale = min(1.0, _PANEL_SIDE / max(photo.shape[:2]))
    tiles = [_draw(photo, overlay, marks, scale) for overlay in overlays]
    height, gap = tiles[0].shape[0], max(6, round(max(tiles[0].shape) / 80))
    spacer = np.full((height, gap, 3), 255, dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (spacer, tile)][1:], axis=1)


def draw_objects(photo: Picture, objects: Iterable[ObjectOverlay]) -> Picture:
    """Draw many objects on the photo at full size, each in its own colour; later objects cover earlier ones.

    Objects are drawn one by one, so that an iterator does not need to hold all masks.
    """
    labels = np.zeros(photo.shape[:2], dtype=np.int32)
    tags = []
    for number, item in enumerate(objects, start=1):
        labels[item.mask] = number
        tags.append((item.box, item.caption))
    colors = [_distinct_color(number) for number in range(len(tags))]
    unit = _unit(photo.shape[0], photo.shape[1])
    canvas = _paint(photo, labels, colors, unit)
    for (box, caption), color in zip(tags, colors, strict=True):
        if box is not None:
            _mark_box(canvas, box, 1.0, unit, color)
            canvas = _labelled(canvas, caption, (box[0], box[1]), unit) if caption else canvas
    return canvas


def _draw(photo: Picture, overlay: MaskOverlay, marks: PromptMarks, scale: float) -> Picture:
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    small = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    mask = overlay.mask.astype(np.float32)
    coverage = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
    unit = _unit(height, width)
    canvas = _tint(small, coverage)
    _outline(canvas, coverage, unit)
    if marks.box is not None:
        _mark_box(canvas, marks.box, scale, unit)
    for x, y, label in marks.points:
        _mark_point(canvas, (x * scale, y * scale), label, unit)
    return _captioned(canvas, overlay.caption, unit)


def _unit(height: int, width: int) -> float:
    """Size of a screen pixel when the whole picture fits the screen."""
    return max(1.0, max(height, width) / 900)


def _distinct_color(number: int) -> Rgb:
    """Hues a golden angle apart, so that consecutive numbers have very different hues, in two shades."""
    hue, saturation = (number * 0.618034) % 1.0, 0.85 if number % 2 else 0.6
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _paint(photo: Picture, labels: npt.NDArray[np.int32], colors: Sequence[Rgb], unit: float) -> Picture:
    """Tint each labelled region, with an outline in its full colour and a dark line between regions."""
    borders = np.zeros(labels.shape, dtype=np.uint8)
    borders[1:] |= labels[1:] != labels[:-1]
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    rims = cv2.dilate(borders, np.ones((2 * round(1.5 * unit) + 1,) * 2, dtype=np.uint8))
    lines = borders if unit < 2 else cv2.dilate(borders, np.ones((round(unit),) * 2, dtype=np.uint8))
    table = np.array([(0, 0, 0), *colors], dtype=np.float32)
    canvas = np.empty_like(photo)
    # Row by row, because for a large photo the intermediate arrays would be many times its size.
    for row, (pixels, numbers) in enumerate(zip(photo, labels, strict=True)):
        strength = np.where(numbers > 0, np.where(rims[row], 1.0, _OBJECT_TINT), 1 - _SURROUNDINGS)[:, None]
        painted = pixels + (table[numbers] - pixels) * strength
        canvas[row] = np.where(lines[row, :, None], _DARK, painted).round()
    return canvas


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


def _mark_box(canvas: Picture, box: Sequence[float], scale: float, unit: float, color: Rgb = _BOX) -> None:
    x0, y0, x1, y1 = (round(value * scale) for value in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _DARK, round(4 * unit), cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), color, round(2 * unit), cv2.LINE_AA)


def _labelled(canvas: Picture, text: str, corner: tuple[float, float], unit: float) -> Picture:
    """Draw a small label inside the top left corner of a box."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font, pad = ImageFont.load_default(size=11 * unit), 3 * unit
    left, top, right, bottom = draw.textbbox((corner[0] + 2 * pad, corner[1] + 2 * pad), text, font=font)
    draw.rectangle((left - pad, top - pad, right + pad, bottom + pad), fill=_DARK)
    draw.text((corner[0] + 2 * pad, corner[1] + 2 * pad), text, font=font, fill=_WHITE)
    return np.asarray(image).copy()


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
