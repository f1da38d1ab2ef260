"""Animations: objects tinted and outlined in each frame, and the gaze.

Pictures are RGB uint8 `[H, W, 3]`; coordinates are (x, y) in their pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]
Point = tuple[float, float]

# Okabe and Ito's palette, which is safe for colour-blind viewers.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_WHITE = (255, 255, 255)
_DARK = (22, 24, 29)
_TINT = 0.5
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_JPEG_QUALITY = 95
_PALETTE_FRAMES = 8


class UnreadableVideo(OSError):
    """The folder has no images, or OpenCV cannot read the file as a video."""


def draw_objects(photo: Picture, masks: Mapping[int, npt.NDArray[np.bool_]], caption: str) -> Picture:
    """Draw objects over the photo, each in a colour derived from its id.

    Args:
        masks: bool `[h, w]` of any size; they are scaled to the photo.
    """
    height, width = photo.shape[:2]
    canvas = photo.copy()
    line = max(1, round(max(height, width) / 400))
    for number, mask in masks.items():
        color = _COLORS[number % len(_COLORS)]
        full = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR) > 0
        canvas[full] = (canvas[full] * (1 - _TINT) + np.array(color) * _TINT).astype(np.uint8)
        outlines, _ = cv2.findContours(full.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, outlines, -1, _WHITE, line + 2, cv2.LINE_AA)
        cv2.drawContours(canvas, outlines, -1, color, line, cv2.LINE_AA)
    return _captioned(canvas, caption)


def draw_gaze(canvas: Picture, trail: Sequence[Point], seen: bool) -> None:
    """Draw the current and recent gaze points into a picture. Points are hollow while the eyes are not detected."""
    unit = max(1.0, max(canvas.shape[:2]) / 600)
    points = [(round(x), round(y)) for x, y in trail]
    for start, end in pairwise(points):
        cv2.line(canvas, start, end, _DARK, round(3 * unit), cv2.LINE_AA)
        cv2.line(canvas, start, end, _WHITE, max(1, round(unit)), cv2.LINE_AA)
    if points:
        cv2.circle(canvas, points[-1], round(9 * unit), _DARK, round(4 * unit), cv2.LINE_AA)
        cv2.circle(canvas, points[-1], round(9 * unit), _WHITE, round(2 * unit), cv2.LINE_AA)
        if seen:
            cv2.circle(canvas, points[-1], round(4 * unit), (213, 94, 0), cv2.FILLED, cv2.LINE_AA)


def write_animation(path: Path, pictures: Sequence[Picture], frames_per_second: float) -> None:
    """Write a GIF, WebP or animated PNG, by the path's suffix.

    Raises:
        OSError, ValueError: it cannot be written, or the suffix is unknown.
    """
    images = [Image.fromarray(picture) for picture in pictures]
    if path.suffix.lower() == ".gif":
        # One palette for all frames, computed from some of them; a palette per frame would flicker.
        some = np.concatenate(pictures[:: max(1, len(pictures) // _PALETTE_FRAMES)], axis=1)
        palette = Image.fromarray(some).quantize(255)
        images = [image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 / frames_per_second), loop=0)


def read_frames(path: Path) -> Iterator[tuple[bytes, Picture]]:
    """Read the frames of a video file, or the images of a folder sorted by name. Yields each as a file and as a
    picture.

    Raises:
        UnreadableVideo: there are none.
        OSError: a file cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES)
        if not files:
            raise UnreadableVideo(f"{path} contains no images ({', '.join(sorted(_IMAGE_SUFFIXES))})")
        for file in files:
            data = file.read_bytes()
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                raise UnreadableVideo(f"{file} is not an image in a supported format")
            yield data, _rgb(pixels)
        return
    path.open("rb").close()
    capture = cv2.VideoCapture(str(path))
    try:
        empty = True
        while True:
            more, pixels = capture.read()
            if not more:
                break
            empty = False
            encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
            yield encoded.tobytes(), _rgb(pixels)
        if empty:
            raise UnreadableVideo(f"{path} is not a video that OpenCV can read")
    finally:
        capture.release()


def frames_per_second(path: Path, default: float = 25.0) -> float:
    """Return the frame rate of a video file, or `default` for a folder or a file that does not state it."""
    if path.is_dir():
        return default
    capture = cv2.VideoCapture(str(path))
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate if 0 < rate < 1000 else default


class VideoFile:
    """A video to be written, as MPEG-4 or Motion JPEG by the path's suffix. The first frame determines its size.

    Raises:
        ValueError: the suffix is neither .mp4 nor .avi.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise ValueError(f"{path}: expected a name ending in {' or '.join(_CODECS)}")
        self._path, self._rate = path, frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def write(self, picture: Picture) -> None:
        """Append a frame."""
        if self._writer is None:
            height, width = picture.shape[:2]
            codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), codec, self._rate, (width, height))
            if not self._writer.isOpened():
                raise OSError(f"cannot write {self._path}")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def _rgb(pixels: npt.NDArray[Any]) -> Picture:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _captioned(canvas: Picture, caption: str) -> Picture:
    if not caption:
        return canvas
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(12, max(canvas.shape[:2]) // 45)
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = draw.textbbox((size, size), caption, font=font)
    pad = size // 2
    draw.rounded_rectangle((left - pad, top - pad, right + pad, bottom + pad), radius=pad, fill=(*_DARK, 205))
    draw.text((size, size), caption, font=font, fill=_WHITE)
    return np.array(image)
