"""The prompt as flags: `--point X,Y[,LABEL]` and `--box X0,Y0,X1,Y1`."""

import argparse
from dataclasses import dataclass

from samserve.cli.pictures.marks import PromptMarks


@dataclass(frozen=True, slots=True)
class PromptFlags:
    """A prompt, in pixels of the photo after EXIF orientation or normalised to [0, 1].

    Attributes:
        points: (x, y, label), label 1 foreground or 0 background.
        box: XYXY.
        normalized: whether the coordinates are [0, 1] across width and height.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    normalized: bool = False

    @property
    def point_coords(self) -> list[tuple[float, float]] | None:
        """The points' (x, y), in the client's form."""
        return [(x, y) for x, y, _ in self.points] or None

    @property
    def point_labels(self) -> list[int] | None:
        """The points' labels, in the client's form."""
        return [label for _, _, label in self.points] or None

    def marks(self, original_size: tuple[int, int]) -> PromptMarks:
        """Convert the prompt to pixels of a photo of size (H, W)."""
        height, width = original_size if self.normalized else (1, 1)
        box = self.box and (self.box[0] * width, self.box[1] * height, self.box[2] * width, self.box[3] * height)
        return PromptMarks([(x * width, y * height, label) for x, y, label in self.points], box)


def add_point_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--point X,Y[,LABEL]`, repeatable."""
    parser.add_argument(
        "--point",
        type=point,
        action="append",
        default=[],
        metavar="X,Y[,LABEL]",
        help="a point on the object (LABEL 1, default) or on the background (LABEL 0); repeatable",
    )


def add_box_flag(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add `--box X0,Y0,X1,Y1`, repeatable."""
    parser.add_argument("--box", type=box, action="append", default=[], metavar="X0,Y0,X1,Y1", help=meaning)


def point(text: str) -> tuple[float, float, int]:
    """Read `X,Y` or `X,Y,LABEL`.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    coords, label = text.split(",")[:2], text.split(",")[2:]
    if len(coords) != 2 or label not in ([], ["0"], ["1"]):
        raise argparse.ArgumentTypeError(
            f"expected X,Y or X,Y,LABEL with LABEL 1 (foreground) or 0 (background), got {text!r}"
        )
    x, y = _numbers(coords, text)
    return x, y, int(label[0]) if label else 1


def box(text: str) -> tuple[float, float, float, float]:
    """Read `X0,Y0,X1,Y1`.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    parts = text.split(",")
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"expected X0,Y0,X1,Y1, got {text!r}")
    x0, y0, x1, y1 = _numbers(parts, text)
    return x0, y0, x1, y1


def _numbers(parts: list[str], text: str) -> list[float]:
    try:
        return [float(part) for part in parts]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers, got {text!r}") from None
