"""Track an object through frames: prompt it with a box on the first frame, and get its mask on each.

python examples/track.py frames/ --box 0.2,0.2,0.7,0.9
"""

import argparse
from pathlib import Path

from samserve.client import Client, Prompt


def main() -> None:
    parser = argparse.ArgumentParser(description="Track an object through the images of a folder, sorted by name.")
    parser.add_argument(
        "image",
        type=Path,
        metavar="FOLDER",
        help="folder of frames of equal size; or one photo, which is used as three frames",
    )
    parser.add_argument("--box", default="0.2,0.2,0.7,0.9", help="X0,Y0,X1,Y1 on the first frame, from 0 to 1")
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()
    frames = sorted(arguments.image.iterdir()) if arguments.image.is_dir() else [arguments.image] * 3
    box = [float(number) for number in arguments.box.split(",")]

    with Client(arguments.server) as client:
        # You choose the object ids. `frames` may also be a generator that reads a camera.
        for frame in client.track(frames, {1: Prompt(box=box)}, normalized=True):
            for tracked in frame.objects:
                area = f"{tracked.mask.area} px" if tracked.mask is not None else "not seen"
                print(f"frame {frame.sequence}: object {tracked.object_id} {tracked.state}, {area}")


if __name__ == "__main__":
    main()
