"""Animations: objects tinted and outlined in each frame, and the gaze.

Pictures are RGB uint8 `[H, W, 3]`; coordinates are (x, y) in their pixels.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from samserve.cli.output import SIGNATURE, unfinished
from samserve.cli.photos import photos_of
from samserve.cli.pictures.files import signature
from samserve.cli.pictures.photo import Picture, read_photo

Point = tuple[float, float]

# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_WHITE = (255, 255, 255)
_DARK = (22, 24, 29)
_TINT = 0.5
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_JPEG_QUALITY = 95
_PALETTE_FRAMES = 8


class UnreadableVideo(OSError):
    """A folder without readable images, or a file that is no video that OpenCV reads."""


def draw_objects(photo: Picture, masks: Mapping[int, npt.NDArray[np.bool_]], caption: str) -> Picture:
    """Draw objects over the photo, each in a colour derived from its id.

    Args:
        masks: bool `[h, w]` of any size; they are scaled to the photo.
    """
    height, width = photo.shape[:2]
    canvas = photo.copy()
    line = max(1, round(max(height, width) / 400))
    for number, mask in masks.items():
        color = COLORS[number % len(COLORS)]
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
    options = {".gif": {"comment": SIGNATURE}}.get(path.suffix.lower()) or signature(path)
    duration = round(1000 / frames_per_second)
    with unfinished(path) as temporary:
        images[0].save(temporary, save_all=True, append_images=images[1:], duration=duration, loop=0, **options)


class Frame(NamedTuple):
    """One frame of a video: the name of its file, the file as it is sent, and its pixels."""

    name: str
    data: bytes
    picture: Picture


def read_frames(path: Path, on_unreadable: Callable[[str], None]) -> Iterator[Frame]:
    """The frames of a video file, or the images of a folder in natural order.

    Args:
        on_unreadable: is told of each image of a folder that is none, or has another size than the first; it is left
            out.

    Raises:
        CommandFailed, UnreadableVideo: there are none.
        OSError: a file cannot be read.
    """
    return _frames_of_folder(path, on_unreadable) if path.is_dir() else _frames_of_video(path)


def _frames_of_folder(path: Path, on_unreadable: Callable[[str], None]) -> Iterator[Frame]:
    size = None
    for file in photos_of(path):
        try:
            data = file.read_bytes()
            picture = read_photo(data)
        except OSError as error:
            on_unreadable(f"{file}: {error.strerror or error}")
            continue
        height, width = picture.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            on_unreadable(f"{file}: has {width} x {height} pixels, but the first frame has {size[0]} x {size[1]}")
            continue
        yield Frame(file.name, data, picture)
    if size is None:
        raise UnreadableVideo(f"{path} contains no image that can be read")


def _frames_of_video(path: Path) -> Iterator[Frame]:
    path.open("rb").close()
    capture = cv2.VideoCapture(str(path))
    try:
        for number in count():
            more, pixels = capture.read()
            if not more:
                if number == 0:
                    raise UnreadableVideo(f"{path} is not a video that OpenCV can read")
                return
            encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
            yield Frame(f"{number:05d}.jpg", encoded.tobytes(), _rgb(pixels))
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
        check_video_name(path)
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
        if self._writer is None:
            return
        self._writer.release()
        text = SIGNATURE.encode()
        text += b" " * (len(text) % 2)
        # Both containers have a kind of box whose content players pass over.
        unused = struct.pack(">I", 8 + len(text)) + b"free" if self._path.suffix.lower() == ".mp4" else b""
        unused = unused or b"JUNK" + struct.pack("<I", len(text))
        with self._path.open("ab") as file:
            file.write(unused + text)


def check_video_name(path: Path) -> None:
    """Check that a video can be written under this name.

    Raises:
        ValueError: the suffix is neither .mp4 nor .avi.
    """
    if path.suffix.lower() not in _CODECS:
        raise ValueError(f"{path}: expected a name ending in {' or '.join(_CODECS)}")


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
