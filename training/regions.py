"""Weak masks for real photographs: hierarchies of regions from classical segmentation.

    python -m training regions

Superpixels are merged greedily, the most alike neighbours first, by colour, texture and the edge between them.
A node of the resulting tree that lives long, from the merge that made it to the merge that swallows it, is
a region on which many scales agree; these become the masks, nested or disjoint by construction.
"""

import heapq
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic
from tqdm import tqdm

from training.samples import SIDE, MaskedImage

SUPERPIXEL_AREA = 220
REGIONS = 40
NOISE = 0.2
COLOUR_BINS = 8


def _histograms(bins: NDArray[np.int64], labels: NDArray[np.int64], count: int, width: int) -> NDArray[np.float64]:
    """Per-superpixel histograms [count, width] of a map of bin numbers [H, W]."""
    flat = np.bincount((labels * width + bins).ravel(), minlength=count * width)
    return flat.reshape(count, width).astype(np.float64)


def _texture_bins(grey: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    """Bins of orientation and strength of the gradient, [H, W], and the strength itself."""
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    orientation = (np.arctan2(dy, dx) % np.pi / np.pi * 4).astype(np.int64) % 4
    level = np.digitize(strength, [12.0, 36.0, 96.0])
    return orientation * 4 + level, strength, 16


class _Merger:
    """Region statistics that add up, and the cost of joining two neighbours."""

    def __init__(self, image: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        count = int(labels.max()) + 1
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
        texture, strength, width = _texture_bins(lab[..., 0])
        quantised = (lab * (COLOUR_BINS / 256)).astype(np.int64) + np.arange(3) * COLOUR_BINS
        colour = sum(_histograms(quantised[..., c], labels, count, 3 * COLOUR_BINS) for c in range(3))
        self.pixels = labels.size
        self.area = list(np.bincount(labels.ravel(), minlength=count).astype(float))
        sums = np.stack([np.bincount(labels.ravel(), lab[..., c].ravel(), count) for c in range(3)], axis=1)
        self.sums = list(np.concatenate([sums, colour, _histograms(texture, labels, count, width)], axis=1))
        self.borders: list[dict[int, NDArray[np.float64]]] = [{} for _ in range(count)]
        for a, b, s in (
            (labels[:, :-1], labels[:, 1:], np.maximum(strength[:, :-1], strength[:, 1:])),
            (labels[:-1], labels[1:], np.maximum(strength[:-1], strength[1:])),
        ):
            pairs, position = np.unique(np.stack([a[a != b], b[a != b]]), axis=1, return_inverse=True)
            lengths, edges = np.bincount(position.ravel()), np.bincount(position.ravel(), s[a != b])
            for (one, other), length, edge in zip(pairs.T.tolist(), lengths, edges, strict=True):
                for here, there in ((one, other), (other, one)):
                    known = self.borders[here].get(there, np.zeros(2))
                    self.borders[here][there] = known + np.array((length, edge))

    def cost(self, a: int, b: int) -> float:
        one, other = self.sums[a] / self.area[a], self.sums[b] / self.area[b]
        length, edge = self.borders[a][b]
        mean = float(np.linalg.norm(one[:3] - other[:3])) / 60
        chi = (one[3:] - other[3:]) ** 2 / (one[3:] + other[3:] + 1e-9)
        colour, texture = float(chi[: 3 * COLOUR_BINS].sum()) / 6, float(chi[3 * COLOUR_BINS :].sum()) / 2
        unlike = mean + colour + texture + min(edge / length / 150, 1.0)
        # Small regions are cheap to join, so that the tree follows things and not specks.
        share = self.area[a] * self.area[b] / (self.area[a] + self.area[b]) / self.pixels
        return unlike * float(share**0.35)

    def join(self, a: int, b: int) -> int:
        new = len(self.area)
        self.area.append(self.area[a] + self.area[b])
        self.sums.append(self.sums[a] + self.sums[b])
        joined: dict[int, NDArray[np.float64]] = {}
        for old in (a, b):
            for neighbour, border in self.borders[old].items():
                if neighbour in (a, b):
                    continue
                joined[neighbour] = joined.get(neighbour, np.zeros(2)) + border
                del self.borders[neighbour][old]
        for neighbour, border in joined.items():
            self.borders[neighbour][new] = border
        self.borders.append(joined)
        self.borders[a], self.borders[b] = {}, {}
        return new


def _merge_tree(merger: _Merger) -> tuple[list[tuple[int, int]], list[float]]:
    """The merges in order (children of node count + i) and the height of every node."""
    count = len(merger.area)
    alive = set(range(count))
    queue = [(merger.cost(a, b), a, b) for a in range(count) for b in merger.borders[a] if a < b]
    heapq.heapify(queue)
    merges: list[tuple[int, int]] = []
    heights = [0.0] * count
    while queue:
        cost, a, b = heapq.heappop(queue)
        if a not in alive or b not in alive:
            continue
        heights.append(max(cost, heights[a], heights[b]))
        new = merger.join(a, b)
        alive -= {a, b}
        alive.add(new)
        merges.append((a, b))
        for neighbour in merger.borders[new]:
            heapq.heappush(queue, (merger.cost(new, neighbour), neighbour, new))
    return merges, heights


def region_hierarchy(image: NDArray[np.uint8]) -> MaskedImage | None:
    """The firm regions of a photograph [H, W, 3], or nothing where there are fewer than three."""
    smooth = cv2.bilateralFilter(image, 5, 30, 3)
    count = max(20, image.shape[0] * image.shape[1] // SUPERPIXEL_AREA)
    labels = slic(smooth, n_segments=count, compactness=8, max_num_iter=6, start_label=0).astype(np.int64)
    merges, heights = _merge_tree(_Merger(smooth.astype(np.uint8), labels))
    leaves = int(labels.max()) + 1
    nodes = leaves + len(merges)
    members = np.zeros((nodes, leaves), dtype=bool)
    members[:leaves] = np.eye(leaves, dtype=bool)
    ceiling = np.full(nodes, max(heights) * 1.2)
    for node, (a, b) in enumerate(merges, start=leaves):
        members[node] = members[a] | members[b]
        ceiling[[a, b]] = heights[node]
    area = members @ np.bincount(labels.ravel(), minlength=leaves) / labels.size
    # Differences far below the strongest of the picture are noise, however long they live relative to themselves.
    weights = (ceiling - np.asarray(heights)) / (ceiling + NOISE * max(heights))
    kept = np.flatnonzero((area > 0.005) & (area < 0.75) & (weights > 0.08) & (np.arange(nodes) >= leaves))
    kept = kept[np.argsort(-weights[kept])][:REGIONS]
    if len(kept) < 3:
        return None
    return MaskedImage(image, labels.astype(np.uint16), members[kept], weights[kept].astype(np.float32))


def random_crop(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A part of a photograph [H, W, 3] of random size, place and aspect, its longest side SIDE."""
    height, width = photo.shape[:2]
    aspect = float(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
    whole = min(width, height * aspect)
    crop_width = whole * rng.uniform(0.4, 1.0)
    crop_height = min(height, crop_width / aspect)
    x, y = int(rng.uniform(0, width - crop_width)), int(rng.uniform(0, height - crop_height))
    crop = photo[y : y + int(crop_height), x : x + int(crop_width)]
    scale = SIDE / max(crop.shape[:2])
    size = (max(32, round(crop.shape[1] * scale)), max(32, round(crop.shape[0] * scale)))
    return np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def make_regions(work_dir: Path, crops: int, seed: int) -> None:
    """Fills the pool work_dir/regions up to so many crops of the photographs."""
    # One thread does these small pictures fastest; more would only wait for each other.
    cv2.setNumThreads(1)
    photos = sorted((work_dir / "photos").glob("*.jpg"))
    folder = work_dir / "regions"
    folder.mkdir(exist_ok=True)
    for index in tqdm(range(crops), desc="regions"):
        path = folder / f"{index:05d}.npz"
        rng = np.random.default_rng((seed, index))
        photo = cv2.imread(str(photos[index % len(photos)]), cv2.IMREAD_COLOR)
        if path.exists() or photo is None:
            continue
        sample = region_hierarchy(random_crop(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB).astype(np.uint8), rng))
        if sample is not None:
            sample.save(path)
