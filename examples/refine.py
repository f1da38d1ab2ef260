"""Refine a mask with a second click and the logits of the first answer.

python examples/refine.py photo.jpg --object 0.5,0.5 --background 0.05,0.05
"""

import argparse
from pathlib import Path

from samserve.client import Client


def point(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return float(x), float(y)


def main() -> None:
    parser = argparse.ArgumentParser(description="Refine a mask with a second click. Coordinates are from 0 to 1.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--object", type=point, default=(0.5, 0.5), help="X,Y on the object")
    parser.add_argument("--background", type=point, default=(0.05, 0.05), help="X,Y on the background")
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    with Client(arguments.server) as client:
        first = client.segment(arguments.image, [arguments.object], [1], normalized=True)
        # The server has now cached the embedding: the second call sends only the image id and runs only the decoder.
        refined = client.segment(
            arguments.image,
            [arguments.object, arguments.background],
            [1, 0],
            mask_input=first.low_res_masks[first.best],
            multimask_output=False,
            normalized=True,
        )

    print(f"first:   IoU {first.iou_predictions[first.best]:.2f}, {first.areas[first.best]} pixels")
    print(f"refined: IoU {refined.iou_predictions[0]:.2f}, {refined.areas[0]} pixels, cached: {refined.cached}")


if __name__ == "__main__":
    main()
