"""Traffic of the load test: images by popularity, prompts and arrivals. The same seed gives the same traffic."""

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
"""Image sizes (H, W) and their shares: old webcams, phone previews, video frames, and phone photos."""

PROMPTS = {1: 0.7, 3: 0.2, 8: 0.1}
"""Number of prompts per request and their shares: one click, a few clicks, or a detector's boxes."""


def procedural_photo(size: Size, seed: int) -> bytes:
    """Create a JPEG of soft shapes and texture at all scales, with about as many bytes per pixel as a photo."""
    rng = np.random.default_rng(seed)
    height, width = size
    grey = np.zeros(size, dtype=np.float32)
    cells = 4
    while cells < max(size) / 2:
        noise = rng.normal(0, 1, (max(2, cells * height // width), cells)).astype(np.float32)
        # Equal contrast in each octave, as in natural images (Field, J. Opt. Soc. Am. A, 1987).
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
    """An image file and its hash, computed once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = hashlib.sha256(data)


class Picture:
    """An image with its own id that shares the pixels of a file with others.

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
        """The bytes of the file."""
        return self._photo.data + self._number

    @functools.cached_property
    def image_id(self) -> str:
        """The image id, as the gateway computes it."""
        digest = self._photo.digest.copy()
        digest.update(self._number)
        return f"sha256:{digest.hexdigest()}"


@functools.cache
def camera_photos() -> tuple[Photo, ...]:
    """Create a file of each camera size."""
    return tuple(Photo(procedural_photo(size, number)) for number, size in enumerate(CAMERA_SIZES))


class Pictures:
    """A catalogue of images requested by popularity, and an endless supply of new images.

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
        # Offset that separates these images from the catalogue and from earlier runs against the same gateway.
        self._fresh = int(np.random.default_rng().integers(1 << 32, 1 << 62))

    def popular(self) -> Picture:
        """Choose an image of the catalogue by popularity."""
        return self.catalogue[int(np.searchsorted(self._cumulated, self._rng.random(), side="right"))]

    def fresh(self) -> Picture:
        """Return an image that was never requested before."""
        self._fresh += 1
        return Picture(_any_photo(self._rng), self._fresh)


def _any_photo(rng: np.random.Generator) -> Photo:
    return camera_photos()[rng.choice(len(CAMERA_SIZES), p=tuple(CAMERA_SIZES.values()))]


def zipf(count: int, exponent: float) -> npt.NDArray[np.float64]:
    """Shares of `count` items by Zipf's law, the most popular first."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def random_prompts(rng: np.random.Generator) -> Sequence[pb.Prompt]:
    """Create the prompts of one request in normalised coordinates: clicks or, for many prompts, boxes."""
    count = int(rng.choice(tuple(PROMPTS), p=tuple(PROMPTS.values())))
    centres = rng.uniform(0.1, 0.9, (count, 2))
    if count < max(PROMPTS):
        label = pb.POINT_LABEL_FOREGROUND
        return [pb.Prompt(points=[pb.Point(x=x, y=y, label=label)]) for x, y in centres]
    sides = rng.uniform(0.05, 0.2, (count, 2)) / 2
    corners = np.hstack([centres - sides, centres + sides])
    return [pb.Prompt(box=pb.Box(x0=x0, y0=y0, x1=x1, y1=y1)) for x0, y0, x1, y1 in corners.clip(0, 1)]


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Iterator[float]:
    """Arrival times of independent callers: a Poisson process with this rate and duration."""
    now = 0.0
    while (now := now + rng.exponential(1 / rate)) < seconds and math.isfinite(now):
        yield now
