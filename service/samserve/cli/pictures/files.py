"""Pictures as files, in the format that their name asks for."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from samserve.cli.errors import CommandFailed
from samserve.cli.output import SIGNATURE, write_file

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_WITHOUT_LOSS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 6},
    "JPEG": {"quality": 92, "subsampling": 0},
    "WEBP": {"quality": 92},
    "TIFF": {"compression": "tiff_deflate"},
}
_SOFTWARE = 0x0131
"""The tag of EXIF and TIFF for the program that wrote the file."""


def check_picture_name(flag: str, path: Path | None, *, lossless: bool = False) -> None:
    """Check that a picture can be written under this name.

    Args:
        lossless: whether every pixel counts, as in a mask, or transparency is needed.

    Raises:
        CommandFailed: its suffix stands for no format that can hold it.
    """
    formats = _WITHOUT_LOSS if lossless else _FORMATS
    if path is not None and path.suffix.lower() not in formats:
        raise CommandFailed(f"{flag} {path}: expected a name ending in {', '.join(formats)}")


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a picture in the format of the path's suffix.

    Raises:
        OSError: it cannot be written.
    """
    kind = _FORMATS[path.suffix.lower()]
    buffer = io.BytesIO()
    image.save(buffer, kind, **_QUALITY[kind], **signature(path))
    write_file(path, buffer.getvalue())


def signature(path: Path) -> dict[str, Any]:
    """Options of Pillow that put samserve's signature into a file of this name."""
    kind = _FORMATS[path.suffix.lower()]
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text("Software", SIGNATURE)
        return {"pnginfo": text}
    if kind == "JPEG":
        return {"comment": SIGNATURE}
    exif = Image.Exif()
    exif[_SOFTWARE] = SIGNATURE
    return {"tiffinfo": exif} if kind == "TIFF" else {"exif": exif}
