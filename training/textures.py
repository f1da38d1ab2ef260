"""Procedural and photographic textures for the inside and the ground of composited scenes."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def smooth_noise(size: tuple[int, int], cells: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise in [0, 1] of shape size (H, W) with about `cells` bumps along the longest side."""
    longest = max(size)
    coarse = (max(2, round(size[0] / longest * cells)), max(2, round(size[1] / longest * cells)))
    grid = rng.random(coarse, dtype=np.float32)
    return np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32).clip(0, 1)


def _field(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """One scalar pattern in [0, 1]: a gradient, stripes, checks, spots or fractal noise."""
    height, width = size
    ys, xs = np.mgrid[:height, :width].astype(np.float32) / max(size)
    angle = rng.uniform(0, np.pi)
    along = xs * np.cos(angle) + ys * np.sin(angle)
    across = ys * np.cos(angle) - xs * np.sin(angle)
    frequency = float(np.exp(rng.uniform(np.log(4), np.log(40))))
    warp = smooth_noise(size, rng.uniform(2, 8), rng) * rng.uniform(0, 0.15)
    kind = rng.integers(5)
    if kind == 0:
        field = along
    elif kind == 1:
        field = np.sin((along + warp) * frequency * 2 * np.pi)
    elif kind == 2:
        field = np.sign(np.sin((along + warp) * frequency * np.pi) * np.sin((across + warp) * frequency * np.pi))
    elif kind == 3:
        field = np.cos((along + warp) * frequency * 2 * np.pi) + np.cos((across + warp) * frequency * 2 * np.pi)
    else:
        octaves = [smooth_noise(size, 3 * 2**octave, rng) / 1.6**octave for octave in range(6)]
        field = np.sum(octaves, axis=0)
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(high - low, 1e-6), dtype=np.float32)


def procedural(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """A texture [H, W, 3] of two or three random colours blended by a random pattern."""
    first, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    if rng.random() < 0.5:
        second = first + rng.uniform(-50, 50, 3)
    field = _field(size, rng)[..., None]
    texture = first * field + second * (1 - field)
    texture += (smooth_noise(size, rng.uniform(1, 6), rng)[..., None] - 0.5) * rng.uniform(0, 60, 3)
    texture += rng.standard_normal((*size, 1), dtype=np.float32) * rng.uniform(0, 12)
    return np.asarray(texture.clip(0, 255), dtype=np.uint8)


def photographic(size: tuple[int, int], photos: Sequence[Picture], rng: np.random.Generator) -> Picture:
    """A random part of a random photograph, scaled to size (H, W)."""
    photo = photos[int(rng.integers(len(photos)))]
    height, width = photo.shape[:2]
    share = rng.uniform(0.15, 1.0) * min(height / size[0], width / size[1])
    crop_height, crop_width = max(8, int(size[0] * share)), max(8, int(size[1] * share))
    y, x = int(rng.integers(max(1, height - crop_height))), int(rng.integers(max(1, width - crop_width)))
    crop = photo[y : y + crop_height, x : x + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.asarray(cv2.resize(crop, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def texture(size: tuple[int, int], photos: Sequence[Picture], rng: np.random.Generator) -> Picture:
    """A texture [H, W, 3] uint8 RGB: photographic twice as often as procedural, where there are photographs."""
    if photos and rng.random() < 0.67:
        return photographic(size, photos, rng)
    return procedural(size, rng)
