"""Training samples: an image from the pool, augmented and letterboxed, and some of its masks as objects."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modeling.pixels import PIXEL_MEAN, PIXEL_STD
from training.samples import MaskedImage

MEAN = np.array(PIXEL_MEAN, dtype=np.float32)
STD = np.array(PIXEL_STD, dtype=np.float32)
# Masks are learnt at a quarter of the input size, the decoder's resolution.
CELL = 4


@dataclass(frozen=True)
class Batch:
    """One step's images and objects; coordinates are pixels of the padded square input.

    pixel_values [B, 3, S, S] normalised; targets [B, K, S/4, S/4] covered share of each cell in [0, 1];
    points [B, K, 2] (x, y) inside each object; boxes [B, K, 4] XYXY.
    """

    pixel_values: Tensor
    targets: Tensor
    points: Tensor
    boxes: Tensor


def normalised(image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """SAM's input [3, side, side] for an image [H, W, 3] with longest side `side`: normalised, then zero-padded."""
    canvas = np.zeros((side, side, 3), dtype=np.float32)
    canvas[: image.shape[0], : image.shape[1]] = (image - MEAN) / STD
    return np.ascontiguousarray(canvas.transpose(2, 0, 1))


def _photometric(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply colour, exposure, blur, noise and JPEG artefacts of ordinary cameras."""
    changed: NDArray[Any] = image.astype(np.float32)
    if rng.random() < 0.8:
        changed = 127 + (changed * rng.uniform(0.85, 1.15, 3) - 127) * rng.uniform(0.6, 1.3) + rng.uniform(-30, 30)
    if rng.random() < 0.15:
        changed = np.repeat(changed.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.3:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < 0.3:
        changed = changed + rng.standard_normal(changed.shape, dtype=np.float32) * rng.uniform(2, 12)
    result = changed.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, code = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])
        result = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)
    return result


def _frame(shape: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
    """The part of an image to use: all of it half of the time, otherwise a crop of at least half of each side."""
    if rng.random() < 0.5:
        return slice(None), slice(None)
    height, width = (int(extent * rng.uniform(0.5, 1.0)) for extent in shape)
    top, left = int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _point(inside: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """A point (x, y) of a mask, in its pixels: half of the time near its most interior pixel, otherwise anywhere."""
    if rng.random() < 0.5:
        depth = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        places = np.argwhere(depth >= depth.max() * rng.uniform(0.6, 1.0))
    else:
        places = np.argwhere(inside)
    y, x = places[int(rng.integers(len(places)))] + rng.random(2)
    return float(x), float(y)


class PromptDataset(Dataset[tuple[NDArray[np.float32], ...]]):
    """Samples that depend only on the seed and the index, so that a resumed run sees the same samples."""

    def __init__(self, pool: list[Path], image_size: int, objects: int, seed: int) -> None:
        self.pool = pool
        if not pool:
            raise ValueError("there is nothing to train on: run `python -m training assets masks` first")
        self.image_size = image_size
        self.objects = objects
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """One image's share of a Batch: pixel_values, targets, points, boxes."""
        rng = np.random.default_rng((self.seed, index))
        while True:
            item = self._item(MaskedImage.load(self.pool[int(rng.integers(len(self.pool)))]), rng)
            if item is not None:
                return item

    def _item(self, sample: MaskedImage, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...] | None:
        rows, columns = _frame((sample.labels.shape[0], sample.labels.shape[1]), rng)
        image, labels = sample.image[rows, columns], sample.labels[rows, columns]
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        area = sample.members @ np.bincount(labels.ravel(), minlength=sample.members.shape[1]) / labels.size
        # Users prompt for objects rather than specks, and masks of nearly the whole image teach little.
        chance = sample.weights * np.sqrt(np.minimum(area / 0.05, 1.0)) * ((area > 0.006) & (area < 0.8))
        if not chance.any():
            return None
        scarce = np.count_nonzero(chance) < self.objects
        chosen = rng.choice(len(chance), self.objects, replace=bool(scarce), p=chance / chance.sum())
        # Large-scale jitter: a smaller image leaves padding on both sides.
        longest = self.image_size if rng.random() < 0.75 else int(self.image_size * rng.uniform(0.6, 1.0))
        scale = longest / max(labels.shape)
        size = (max(CELL, round(labels.shape[1] * scale)), max(CELL, round(labels.shape[0] * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels = cv2.resize(np.ascontiguousarray(image), size, interpolation=way)
        labels = cv2.resize(np.ascontiguousarray(labels), size, interpolation=cv2.INTER_NEAREST).astype(np.uint16)
        targets, points, boxes = [], [], []
        for index in chosen:
            mask = np.zeros((self.image_size, self.image_size), dtype=bool)
            mask[: size[1], : size[0]] = sample.members[index][labels]
            if not mask.any():
                return None
            cells = self.image_size // CELL
            targets.append(mask.reshape(cells, CELL, cells, CELL).mean(axis=(1, 3), dtype=np.float32))
            points.append(_point(mask[: size[1], : size[0]], rng))
            boxes.append(_noisy_box(mask, size, rng))
        return (
            normalised(_photometric(np.asarray(pixels, dtype=np.uint8), rng), self.image_size),
            np.stack(targets),
            np.array(points, dtype=np.float32),
            np.array(boxes, dtype=np.float32),
        )


def _noisy_box(mask: NDArray[np.bool_], size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """A mask's box XYXY as drawn by hand: with an error of about 3 % of its sides, inside the image (width, height)."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])
    extent = np.tile(box[2:] - box[:2], 2)
    noisy = box + rng.normal(0, 0.03, 4) * extent * (rng.random() < 0.7)
    return np.asarray(np.clip(noisy, 0, np.array([*size, *size])))


def batches(dataset: PromptDataset, batch: int, first: int, steps: int, workers: int = 1) -> Iterator[Batch]:
    """Steps first .. first + steps - 1 of the endless sequence of batches."""
    order = range(first * batch, (first + steps) * batch)
    loader: DataLoader[tuple[Tensor, ...]]
    loader = DataLoader(dataset, batch, sampler=order, num_workers=workers, drop_last=True)  # type: ignore[arg-type]
    for pixel_values, *rest in loader:
        yield Batch(pixel_values.contiguous(memory_format=torch.channels_last), *rest)
