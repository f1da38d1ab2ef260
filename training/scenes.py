"""Composited scenes with exact masks: things with parts, one before the other, on textured ground.

    python -m training scenes

Masks are the visible pixels, so of any two either one holds the other (a part and its whole) or they are disjoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.samples import SIDE, MaskedImage
from training.textures import Picture, smooth_noise, texture

Mask = NDArray[np.bool_]
SMALLEST = 0.003


@dataclass(frozen=True)
class Scene:
    """image [H, W, 3] uint8 RGB and masks [N, H, W] bool, N at least 1, each nested in or disjoint from any other."""

    image: Picture
    masks: Mask


def _blob(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random closed shape as coverage 0..255, [size, size]: smooth, spiky, polygonal, elongated."""
    count = int(rng.integers(3, 14))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count)) if rng.random() < 0.5 else np.linspace(0, 2 * np.pi, 96)[:-1]
    if len(angles) == count:
        radii = rng.uniform(0.4, 1.0, count)
    else:
        waves = range(1, int(rng.integers(2, 9)))
        waviness = [rng.normal(0, 0.3 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in waves]
        radii = np.maximum(1 + np.sum(waviness, axis=0), 0.15)
    x, y = radii * np.cos(angles), radii * np.sin(angles) * rng.uniform(0.3, 1.0)
    turn = rng.uniform(0, np.pi)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    points = (points - points.min(0)) / np.ptp(points, axis=0).max() * (size - 3) + 1
    canvas = np.zeros((size, size), dtype=np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas


def _parts(alpha: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.int64]:
    """A number for every pixel [h, w] that divides a thing into one to four connected-looking parts."""
    height, width = alpha.shape
    count = int(rng.integers(1, 5))
    seeds = rng.uniform(0, 1, (count, 2)) * (height, width)
    ys, xs = np.mgrid[:height, :width]
    wobble = (smooth_noise((height, width), 5, rng) - 0.5) * 0.4 * max(height, width)
    distances = [np.hypot(ys - y + wobble, (xs - x) * rng.uniform(0.5, 2)) for y, x in seeds]
    return np.asarray(np.argmin(distances, axis=0), dtype=np.int64)


def _turned(picture: Picture, rng: np.random.Generator) -> Picture:
    """An RGBA cutout mirrored and turned at random, its frame grown to hold it."""
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 20), 1.0)
    reach = np.abs(turn[:, :2]) @ (width, height)
    turn[:, 2] += reach / 2 - (width / 2, height / 2)
    return np.asarray(cv2.warpAffine(picture, turn, (int(reach[0]) + 1, int(reach[1]) + 1)), dtype=np.uint8)


def _thing(
    side: int, photos: Sequence[Picture], cutouts: Sequence[Picture], rng: np.random.Generator
) -> tuple[Picture, NDArray[np.uint8], NDArray[np.int64]]:
    """A thing about `side` pixels large: RGB [h, w, 3], coverage [h, w] 0..255, part of each pixel [h, w]."""
    if cutouts and rng.random() < 0.55:
        cutout = _turned(cutouts[int(rng.integers(len(cutouts)))], rng)
        scale = side / max(cutout.shape[:2])
        size = (max(4, round(cutout.shape[1] * scale)), max(4, round(cutout.shape[0] * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        cutout = np.asarray(cv2.resize(cutout, size, interpolation=way), dtype=np.uint8)
        return cutout[..., :3], cutout[..., 3], np.zeros(cutout.shape[:2], dtype=np.int64)
    alpha = _blob(side, rng)
    parts = _parts(alpha, rng)
    colour = texture(alpha.shape, photos, rng)
    for part in range(1, int(parts.max()) + 1):
        colour = np.where((parts == part)[..., None], texture(alpha.shape, photos, rng), colour)
    return colour, alpha, parts


def _shade(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Uneven light over the whole scene [H, W, 3]."""
    light = smooth_noise((image.shape[0], image.shape[1]), rng.uniform(1, 4), rng)
    return np.asarray(image * (1 + (light[..., None] - 0.5) * rng.uniform(0, 0.8)), dtype=np.float32)


def _ground(
    size: tuple[int, int], photos: Sequence[Picture], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ground [H, W, 3] and its zones [H, W]: one texture, or two or three that meet along rough lines."""
    ground = texture(size, photos, rng)
    zones = np.zeros(size, dtype=np.int64)
    for zone in range(1, int(rng.integers(1, 4))):
        ys, xs = np.mgrid[: size[0], : size[1]] / max(size)
        angle = rng.normal(np.pi / 2, 0.5)
        rough = smooth_noise(size, float(np.exp(rng.uniform(1, 3.5))), rng) * rng.uniform(0, 0.2)
        beyond = xs * np.cos(angle) + ys * np.sin(angle) + rough > rng.uniform(0.2, 0.9) * size[0] / max(size)
        zones[beyond] = zone
        ground = np.where(beyond[..., None], texture(size, photos, rng), ground)
    return ground.astype(np.float32), zones


def compose(
    size: tuple[int, int], photos: Sequence[Picture], cutouts: Sequence[Picture], rng: np.random.Generator
) -> Scene:
    """A scene of shape size (H, W); the same generator state gives the same scene."""
    image, zones = _ground(size, photos, rng)
    # Wholes and parts by number: zero is the ground, and a later thing takes pixels from the earlier ones.
    wholes, parts = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for number in range(1, int(rng.integers(3, 13))):
        side = int(max(size) * np.exp(rng.uniform(np.log(0.08), np.log(0.7))))
        colour, alpha, part = _thing(max(side, 12), photos, cutouts, rng)
        height, width = alpha.shape
        top = int(rng.uniform(-0.3 * height, size[0] - 0.7 * height))
        left = int(rng.uniform(-0.3 * width, size[1] - 0.7 * width))
        y0, y1, x0, x1 = max(top, 0), min(top + height, size[0]), max(left, 0), min(left + width, size[1])
        if y1 - y0 < 4 or x1 - x0 < 4:
            continue
        window = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        inside, place = alpha[window], np.s_[y0:y1, x0:x1]
        if rng.random() < 0.4:
            shadow = cv2.GaussianBlur(inside, (0, 0), max(1.0, side * 0.05)).astype(np.float32)[..., None] / 255
            image[place] *= 1 - shadow * rng.uniform(0.2, 0.6)
        cover = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.3, 1.0)).astype(np.float32)[..., None] / 255
        image[place] = image[place] * (1 - cover) + colour[window] * rng.uniform(0.7, 1.15) * cover
        solid = inside > 127
        wholes[place][solid] = number
        parts[place][solid] = part[window][solid]
    masks = _masks(zones, wholes, parts)
    if rng.random() < 0.7:
        image = _shade(image, rng)
    return Scene(image.clip(0, 255).astype(np.uint8), masks)


def _masks(zones: NDArray[np.int64], wholes: NDArray[np.int64], parts: NDArray[np.int64]) -> Mask:
    """All visible zones, wholes and parts [N, H, W] that are large enough and not each other's copies."""
    found: list[Mask] = []
    for number in np.unique(wholes):
        whole = wholes == number
        inner = zones if number == 0 else parts
        found.append(whole)
        pieces = [whole & (inner == piece) for piece in np.unique(inner[whole])]
        found += pieces if len(pieces) > 1 else []
    large = [mask for mask in found if SMALLEST <= mask.mean() <= 0.9]
    return np.stack(large) if large else np.stack([wholes == wholes[0, 0]])


def make_scenes(work_dir: Path, scenes: int, seed: int) -> None:
    """Fills the pool work_dir/scenes up to so many scenes."""
    # One thread does these small pictures fastest; more would only wait for each other.
    cv2.setNumThreads(1)
    photos = [_read(path, cv2.COLOR_BGR2RGB) for path in sorted((work_dir / "photos").glob("*.jpg"))]
    cutouts = [_read(path, cv2.COLOR_BGRA2RGBA) for path in sorted((work_dir / "cutouts").glob("*.png"))]
    folder = work_dir / "scenes"
    folder.mkdir(exist_ok=True)
    for index in tqdm(range(scenes), desc="scenes"):
        path = folder / f"{index:05d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng((seed, index))
        size = (SIDE, int(SIDE * rng.uniform(0.6, 1.0)))
        scene = compose(size if rng.random() < 0.4 else size[::-1], photos, cutouts, rng)
        MaskedImage.of_masks(scene.image, scene.masks).save(path)


def _read(path: Path, colours: int) -> Picture:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"{path} is no picture")
    return np.asarray(cv2.cvtColor(picture, colours), dtype=np.uint8)
