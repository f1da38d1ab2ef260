"""Generate the masks of everything in a photo, with progress, and draw them.

python examples/generate.py photo.jpg --out everything.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from samserve.client import Client


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate the masks of everything in a photo.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--points-per-side", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("everything.png"))
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    with Client(arguments.server) as client:
        masks = list(
            client.generate_masks(
                arguments.image,
                on_progress=lambda done, total: print(f"{done} of {total} points"),
                points_per_side=arguments.points_per_side,
                # The defaults are SAM's thresholds; the small bundled model predicts lower scores.
                pred_iou_thresh=0.5,
                stability_score_thresh=0.7,
            )
        )

    with Image.open(arguments.image) as photo:
        # Masks refer to the photo after EXIF orientation.
        picture = np.array(ImageOps.exif_transpose(photo).convert("RGB"))
    colors = np.random.default_rng(0).integers(0, 256, (len(masks), 3))
    for mask, color in sorted(zip(masks, colors, strict=True), key=lambda pair: -pair[0].area):
        picture[mask.mask] = (picture[mask.mask] + color) // 2
    Image.fromarray(picture).save(arguments.out)
    print(f"wrote {len(masks)} masks to {arguments.out}")


if __name__ == "__main__":
    main()
