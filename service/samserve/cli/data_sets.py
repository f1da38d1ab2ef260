"""Which entries of a COCO file are about a photo.

A data set says it by its `images`, by `file_name`. A list of results has the ids alone: there the photo's name has to
be the id or to end with it, as `000000000139.jpg` and `COCO_val2014_000000000139.jpg` do, unless the user gives the id.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from samserve.cli.errors import CommandFailed
from samserve.cli.output import printable

Entries: TypeAlias = list[tuple[int, dict[str, Any]]]
"""Entries, each with its index in the file."""


def entries_of(
    path: Path, content: Any, photo: Path, original_size: tuple[int, int], image_id: str | None
) -> tuple[int | str, Entries]:
    """The photo's id in a file, and the entries about it.

    Args:
        path: of the file, for messages.
        content: of the file.
        original_size: (H, W) of the photo.
        image_id: as the user gave it; None to find it.

    Raises:
        CommandFailed: the file is not in COCO's format, or is about other photos.
    """
    is_data_set = isinstance(content, dict)
    entries = content.get("annotations") if is_data_set else content
    images = content.get("images") if is_data_set else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CommandFailed(f"{path} is not in COCO results format: expected a list of entries, or a data set")
    numbered = list(enumerate(entries))
    if isinstance(images, list) and images:
        known: int | str = _id_in_data_set(path, images, photo, original_size, image_id)
    else:
        known = _id_in_results(path, entries, photo, image_id)
    return known, [(index, entry) for index, entry in numbered if _is_same(entry.get("image_id", known), known)]


def _id_in_data_set(
    path: Path, images: list[Any], photo: Path, original_size: tuple[int, int], image_id: str | None
) -> int | str:
    listed = [image for image in images if isinstance(image, dict) and isinstance(image.get("id"), int | str)]
    if image_id is not None:
        found = [image for image in listed if _is_same(image["id"], image_id)]
        wanted = f"an image with the id {image_id}"
    else:
        found = _named(listed, photo)
        wanted = f"{printable(photo.name)} (give --image-id ID if the photo has another name there)"
    if not found:
        raise CommandFailed(f"{path} does not list {wanted} among its {len(images)} images")
    if len(found) > 1:
        raise CommandFailed(f"{path} lists {len(found)} images called {printable(photo.name)}; give --image-id ID")
    (image,) = found
    height, width = original_size
    stated = image.get("width"), image.get("height")
    if None not in stated and stated != (width, height):
        raise CommandFailed(
            f"{path} is about another photo: it says that {printable(str(image.get('file_name')))} is {stated[0]} x "
            f"{stated[1]}, but {printable(photo.name)} is {width} x {height}"
        )
    known: int | str = image["id"]
    return known


def _named(images: list[dict[str, Any]], photo: Path) -> list[dict[str, Any]]:
    """The images that have the photo's name; of several, those that agree with most of its folders."""
    parts = [printable(part) for part in reversed(photo.absolute().parts)]

    def agreement(image: dict[str, Any]) -> int:
        name = PurePosixPath(str(image.get("file_name", "")).replace("\\", "/"))
        pairs = list(zip(reversed(name.parts), parts, strict=False))
        return next((count for count, (own, other) in enumerate(pairs) if own != other), len(pairs))

    agreements = [agreement(image) for image in images]
    most = max(agreements, default=0)
    return [image for image, count in zip(images, agreements, strict=True) if count == most > 0]


def _id_in_results(path: Path, entries: list[dict[str, Any]], photo: Path, image_id: str | None) -> int | str:
    ids = {str(entry["image_id"]): entry["image_id"] for entry in entries if entry.get("image_id") is not None}
    if image_id is not None:
        if ids and not any(_is_same(known, image_id) for known in ids.values()):
            raise CommandFailed(f"{path} contains no boxes of an image with the id {image_id}")
        return _as_id(image_id)
    name = printable(photo.stem)
    number = re.search(r"[0-9]+$", name)
    candidates: list[int | str] = [_as_id(name), printable(photo.name), *([int(number[0])] if number else [])]
    for candidate in candidates:
        if any(_is_same(known, candidate) for known in ids.values()):
            return candidate
    # One image, whose id says nothing about a photo that has no number for a name.
    if len(ids) <= 1 and (not ids or (not name.isdecimal() and _is_number(next(iter(ids.values()))))):
        return next(iter(ids.values()), candidates[0])
    several = f"{len(ids)} images" if len(ids) > 1 else f"image {next(iter(ids))}"
    raise CommandFailed(
        f"{path} contains boxes of {several}, but none with the image_id {candidates[0]!r}, the photo's name; give "
        "--image-id ID if the photo has another id there"
    )


def _is_same(known: Any, other: Any) -> bool:
    """Whether two ids mean the same image: `"000139"` is 139."""
    return _as_id(known) == _as_id(other)


def _is_number(value: Any) -> bool:
    return isinstance(_as_id(value), int)


def _as_id(value: Any) -> int | str:
    text = str(value)
    return int(text) if re.fullmatch(r"[0-9]+", text) else text
