"""The photos of a folder."""

import re
from pathlib import Path

from samserve.cli.errors import CommandFailed
from samserve.cli.output import is_own

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def photos_of(folder: Path) -> list[Path]:
    """The photos of a folder in natural order: 2.jpg before 10.jpg.

    Hidden files are left out, such as the `._NAME.jpg` that macOS writes beside NAME.jpg on foreign disks; so are
    overlays and masks that samserve wrote.

    Raises:
        CommandFailed: there are none.
        OSError: the folder cannot be read.
    """
    files = sorted((file for file in folder.iterdir() if _is_photo(file)), key=lambda file: natural_order(file.name))
    photos = [file for file in files if not _is_output(file)]
    if not photos:
        others = f" but {len(files)} that samserve wrote" if files else ""
        raise CommandFailed(f"{folder} contains no photos{others} ({', '.join(sorted(SUFFIXES))})")
    return photos


def natural_order(name: str) -> tuple[tuple[int | str, ...], str]:
    """A key that sorts file names by the numbers in them."""
    parts = re.split(r"([0-9]+)", Path(name).stem)
    # Text and numbers take turns, so that only likes are compared.
    return tuple(int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)), name


def _is_photo(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _is_output(file: Path) -> bool:
    try:
        return is_own(file)
    except OSError:
        # Told where it is read as a photo, so that it does not keep the others from being read.
        return False
