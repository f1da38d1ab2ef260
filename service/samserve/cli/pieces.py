"""The objects of a photo as files of their own: masks, and cut-outs with a transparent background."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from samserve.cli.errors import CommandFailed
from samserve.cli.pictures.files import write_picture
from samserve.cli.pictures.photo import read_photo
from samserve.client import Segmentation
from samserve.client.rle import decode_rle


def files(path: Path | None, count: int) -> list[Path]:
    """The files of so many objects: the path itself for one, `NAME_1.png`, `NAME_2.png`, ... for several."""
    if path is None:
        return []
    return [path] if count == 1 else [path.with_stem(f"{path.stem}_{number}") for number in range(1, count + 1)]


def write_masks(path: Path | None, segmentations: Sequence[Segmentation]) -> None:
    """Write the best mask of each object: 8-bit greyscale, 255 on the object and 0 elsewhere, the size of the photo.

    Raises:
        OSError: a file cannot be written.
    """
    for file, segmentation in zip(files(path, len(segmentations)), segmentations, strict=path is not None):
        write_picture(file, Image.fromarray(_best(segmentation).astype(np.uint8) * 255))


def write_cutouts(path: Path | None, photo: bytes, segmentations: Sequence[Segmentation]) -> None:
    """Write each object alone, transparent around it, cropped to its box.

    Raises:
        CommandFailed: an object has no pixel.
        OSError: a file cannot be written.
    """
    if path is None:
        return
    pixels = read_photo(photo)
    for file, segmentation in zip(files(path, len(segmentations)), segmentations, strict=True):
        mask = _best(segmentation)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            raise CommandFailed(f"{file}: the mask is empty, so there is nothing to cut out; try another prompt")
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        alpha = mask[window].astype(np.uint8) * 255
        # What is transparent is black, so that the file does not hold the background.
        colours = np.where(alpha[..., None] > 0, pixels[window], 0).astype(np.uint8)
        write_picture(file, Image.fromarray(np.dstack([colours, alpha])))


def _best(segmentation: Segmentation) -> npt.NDArray[np.bool_]:
    return decode_rle(segmentation.rles[segmentation.best]["counts"], segmentation.original_size)
