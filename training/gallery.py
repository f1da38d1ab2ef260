"""Draw the trained model's masks for points and boxes on scikit-image's photographs.

    python -m training.gallery --weights runs/tiny.safetensors --output masks.png

Two boxes were redrawn because the first ones contained no object. Otherwise no prompt was selected by its mask, so that
failures are visible too.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import skimage
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from modeling.tiny import IMAGE_SIZE
from training.predictor import Predictor

matplotlib.use("Agg")
TINT = np.array([30, 144, 255])
COLUMNS = 4


class Tile(NamedTuple):
    """A photograph from scikit-image and one prompt in its pixels: a point (x, y), or a box XYXY."""

    picture: str
    prompt: tuple[float, ...]


TILES = (
    Tile("coffee", (280, 150)),
    Tile("coffee", (320, 300)),
    Tile("chelsea", (230, 150)),
    Tile("astronaut", (220, 120)),
    Tile("astronaut", (140, 380)),
    Tile("rocket", (322, 240)),
    Tile("coffee", (80, 15, 480, 385)),
    Tile("chelsea", (50, 0, 400, 300)),
    Tile("astronaut", (20, 0, 410, 512)),
    Tile("astronaut", (155, 10, 290, 210)),
    Tile("rocket", (300, 70, 345, 370)),
    Tile("coffee", (290, 240, 430, 340)),
)


def draw_tile(axes: Axes, predictor: Predictor, tile: Tile) -> None:
    """Draw the mask that a user gets: for a box the single mask, for a point the one with the highest predicted IoU."""
    image: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = getattr(skimage.data, tile.picture)()
    predictor.set_image(Image.fromarray(image))
    if len(tile.prompt) == 4:
        x0, y0, x1, y1 = tile.prompt
        masks, ious, _ = predictor.predict(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), box=(x0, y0, x1, y1))
        chosen = 0
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="white", linewidth=1.5))
    else:
        masks, ious, _ = predictor.predict(np.array([tile.prompt]), np.array([1]))
        chosen = 1 + int(ious[1:].argmax())
        axes.plot(*tile.prompt, marker="o", color="limegreen", markeredgecolor="white", markersize=7)
    mask = masks[chosen]
    shown = np.where(mask[..., None], 0.5 * image + 0.5 * TINT, 0.6 * image).astype(np.uint8)
    axes.imshow(shown)
    axes.contour(mask, levels=[0.5], colors="dodgerblue", linewidths=1.2)
    axes.set_title(f"{'box' if len(tile.prompt) == 4 else 'click'}, predicted IoU {ious[chosen]:.2f}", fontsize=9)
    axes.set_axis_off()


def draw(predictor: Predictor, path: Path) -> None:
    """Draw all tiles into one picture."""
    rows = -(-len(TILES) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 2.6 * rows), layout="constrained")
    for axes, tile in zip(figure.subplots(rows, COLUMNS).flat, TILES, strict=True):
        draw_tile(axes, predictor, tile)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("runs/tiny.safetensors"))
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--output", type=Path, default=Path("masks.png"))
    options = parser.parse_args()
    draw(Predictor.load(options.weights, options.image_size), options.output)


if __name__ == "__main__":
    main()
