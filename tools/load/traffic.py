"""What the callers of a load test ask for: pictures by popularity, prompts, arrivals; the same for the same seed."""

import functools
import hashlib
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from samserve.domain.geometry import Size
from samserve.v1 import segmentation_pb2 as pb

CAMERA_SIZES = {Size(480, 640): 0.35, Size(720, 1280): 0.3, Size(1080, 1920): 0.25, Size(2448, 3264): 0.1}
"""Sizes (H, W) of the pictures and their shares: old webcams, phones' previews, videos, and phones' photos."""

PROMPTS = {1: 0.7, 3: 0.2, 8: 0.1}
"""How many prompts a request has, and the shares: a click; a few of them; a detector's boxes."""


def procedural_photo(size: Size, seed: int) -> bytes:
    """A JPEG of soft shapes and texture at all scales, about as many bytes a pixel as a photo has."""
    rng = np.random.default_rng(seed)
    height, width = size
    grey = np.zeros(size, dtype=np.float32)
    cells = 4
    while cells < max(size) / 2:
        noise = rng.normal(0, 1, (max(2, cells * height // width), cells)).astype(np.float32)
        # The same contrast in each octave, as in natural images (Field, J. Opt. Soc. Am. A, 1987).
        grey += 14 * np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))
        cells *= 2
    pixels = np.repeat(128 + grey[..., None], 3, axis=2)
    for _ in range(6):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.05, 0.2) * min(size)
        rows, columns = np.ogrid[:height, :width]
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] += rng.uniform(-90, 90, 3).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


class Photo:
    """A file and its hash, which is taken once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = hashlib.sha256(data)


class Picture:
    """An image of its own that shares a file's pixels with others.

    JPEG readers ignore what follows the end of the image; image ids do not.

    Args:
        photo: the file.
        number: what follows it.
    """

    def __init__(self, photo: Photo, number: int) -> None:
        self._photo = photo
        self._number = number.to_bytes(8, "big")

    @property
    def data(self) -> bytes:
        """The file."""
        return self._photo.data + self._number

    @functools.cached_property
    def image_id(self) -> str:
        """As the gateway names it."""
        digest = self._photo.digest.copy()
        digest.update(self._number)
        return f"sha256:{digest.hexdigest()}"


@functools.cache
def camera_photos() -> tuple[Photo, ...]:
    """A file of each camera size."""
    return tuple(Photo(procedural_photo(size, number)) for number, size in enumerate(CAMERA_SIZES))


class Pictures:
    """A catalogue that is asked for by popularity, and beside it an endless supply of pictures nobody has seen.

    Args:
        count: of the catalogue.
        exponent: of Zipf's law: picture k, from 1, is asked for as 1 / k^exponent.
        seed: of whom: callers with different seeds see the same catalogue and draw differently.
    """

    def __init__(self, count: int, exponent: float, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 1))
        rng = np.random.default_rng(0)
        self.catalogue = [Picture(_any_photo(rng), rank) for rank in range(count)]
        self._cumulated = np.cumsum(zipf(count, exponent))
        # Out of the way of the catalogue and of earlier runs against the same gateway.
        self._fresh = int(np.random.default_rng().integers(1 << 32, 1 << 62))

    def popular(self) -> Picture:
        """One of the catalogue."""
        return self.catalogue[int(np.searchsorted(self._cumulated, self._rng.random(), side="right"))]

    def fresh(self) -> Picture:
        """One that nobody has asked for."""
        self._fresh += 1
        return Picture(_any_photo(self._rng), self._fresh)


def _any_photo(rng: np.random.Generator) -> Photo:
    return camera_photos()[rng.choice(len(CAMERA_SIZES), p=tuple(CAMERA_SIZES.values()))]


def zipf(count: int, exponent: float) -> npt.NDArray[np.float64]:
    """The shares of `count` things by popularity, the most popular first."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def random_prompts(rng: np.random.Generator) -> Sequence[pb.Prompt]:
    """The prompts of one request, in normalised coordinates: clicks, or where there are many, boxes."""
    count = int(rng.choice(tuple(PROMPTS), p=tuple(PROMPTS.values())))
    centres = rng.uniform(0.1, 0.9, (count, 2))
    if count < max(PROMPTS):
        label = pb.POINT_LABEL_FOREGROUND
        return [pb.Prompt(points=[pb.Point(x=x, y=y, label=label)]) for x, y in centres]
    sides = rng.uniform(0.05, 0.2, (count, 2)) / 2
    corners = np.hstack([centres - sides, centres + sides])
    return [pb.Prompt(box=pb.Box(x0=x0, y0=y0, x1=x1, y1=y1)) for x0, y0, x1, y1 in corners.clip(0, 1)]


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Iterator[float]:
    """When callers come who know nothing of each other: a Poisson process of so many a second, for so long."""
    now = 0.0
    while (now := now + rng.exponential(1 / rate)) < seconds and math.isfinite(now):
        yield now
