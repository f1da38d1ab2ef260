"""Follow an object through frames: a box on the first one, a mask on each.

python examples/track.py frames/ --box 0.2,0.2,0.7,0.9
"""

import argparse
from pathlib import Path

from samserve.client import Client, Prompt


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow an object through the images of a folder, in order of names.")
    parser.add_argument("image", type=Path, metavar="FOLDER", help="frames of one size; or a photo, taken three times")
    parser.add_argument("--box", default="0.2,0.2,0.7,0.9", help="X0,Y0,X1,Y1 on the first frame, from 0 to 1")
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()
    frames = sorted(arguments.image.iterdir()) if arguments.image.is_dir() else [arguments.image] * 3
    box = [float(number) for number in arguments.box.split(",")]

    with Client(arguments.server) as client:
        # Objects are named by numbers of yours; `frames` may as well be a generator that reads a camera.
        for frame in client.track(frames, {1: Prompt(box=box)}, normalized=True):
            for tracked in frame.objects:
                area = f"{tracked.mask.area} px" if tracked.mask is not None else "not seen"
                print(f"frame {frame.sequence}: object {tracked.object_id} {tracked.state}, {area}")


if __name__ == "__main__":
    main()
