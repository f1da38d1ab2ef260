"""Edit a prompt in an interactive session, and get the masks after each edit.

python examples/interactive.py photo.jpg
"""

import argparse
from pathlib import Path

from samserve.client import Client, SessionMasks


def report(edit: str, answer: SessionMasks) -> None:
    masks = ", ".join(f"{mask.area} px at IoU {mask.iou_prediction:.2f}" for mask in answer.masks)
    print(f"{edit}: {len(answer.points)} points, box {answer.box}: {masks}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Edit a prompt in an interactive session.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    with Client(arguments.server) as client, client.interactive(arguments.image, normalized=True) as session:
        session.add_point(0.5, 0.5)
        report("click", session.masks())
        session.add_point(0.05, 0.05, label=0)
        report("click beside the object", session.masks())
        # Dragging a box: the server cancels the decode of an edit when the next edit arrives.
        for right in (0.6, 0.7, 0.8):
            session.set_box(0.2, 0.2, right, 0.9)
        report("box", session.masks())
        session.undo()
        report("undo", session.masks())


if __name__ == "__main__":
    main()
