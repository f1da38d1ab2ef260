"""Segment the object at a point of a photo, and save its mask.

python examples/segment.py photo.jpg --point 320,240 --out mask.png
"""

import argparse
from pathlib import Path

from PIL import Image

from samserve.client import Client


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment the object at a point of a photo.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--point", default="0.5,0.5", help="X,Y, in pixels or from 0 to 1; default: the centre")
    parser.add_argument("--out", type=Path, default=Path("mask.png"))
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()
    x, y = (float(number) for number in arguments.point.split(","))

    with Client(arguments.server) as client:
        # A single point may refer to several objects, so the result has three masks, each with its predicted IoU.
        result = client.segment(arguments.image, [(x, y)], [1], normalized=max(x, y) <= 1)

    for index, iou in enumerate(result.iou_predictions):
        print(f"mask {index}: IoU {iou:.2f}, {result.areas[index]} pixels, box {result.boxes[index].tolist()}")
    Image.fromarray(result.masks[result.best]).save(arguments.out)
    print(f"wrote mask {result.best} to {arguments.out}")


if __name__ == "__main__":
    main()
