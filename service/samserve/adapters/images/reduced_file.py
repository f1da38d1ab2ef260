"""Files without what their pixels do not need."""

from dataclasses import dataclass

from samserve.adapters.images.orientation import UPRIGHT


class TooMuchWork(ValueError):
    """Decoding the file would take more steps than any ordinary file needs; the text says of what."""

    def __init__(self, description: str = "too many tiny segments, chunks or blocks") -> None:
        super().__init__(f"{description}; re-encode the image")


@dataclass(frozen=True, slots=True)
class ReducedFile:
    """A file without what its pixels do not need.

    Attributes:
        orientation: as EXIF numbers it.
        transparent_samples: of a PNG without alpha, the samples of transparent pixels, at the file's own depth.
    """

    data: bytes
    orientation: int = UPRIGHT
    transparent_samples: tuple[int, ...] | None = None
