"""The files that commands write: never over an input or a foreign file, and whole or not at all."""

import argparse
import os
import stat
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from samserve.cli.errors import CommandFailed

FileIdentity: TypeAlias = tuple[int, int] | str
"""Device and inode of a file; its resolved path where there is none yet."""

SIGNATURE = "Created by samserve"
"""Stands in every file that a command writes, so that a later run may replace it."""

# Every format keeps it near its beginning or its end; a JSON record in front of its annotations.
_SEARCHED_BYTES = 64 * 1024


_RECORD_OF_0_1 = b'{"image": {"image_id": "sha256:'
"""Version 0.1 wrote records without the signature."""


def add_force_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--force`."""
    parser.add_argument(
        "--force", action="store_true", help="overwrite output files that are inputs or that samserve did not write"
    )


def output_file(text: str) -> Path:
    """Type of a flag for an output file. It checks the path before any work is done.

    Raises:
        argparse.ArgumentTypeError: it is a folder, or its folder does not exist.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"folder {path.parent} does not exist; create it first")
    return path


def identities(paths: Iterable[Path]) -> set[FileIdentity]:
    """The files behind these paths, which links and other spellings of a path do not hide."""
    return {_identity(path) for path in paths}


def check_outputs(outputs: Iterable[Path | None], inputs: Container[FileIdentity], *, force: bool) -> None:
    """Check that writing these files of one command destroys nothing. None stands for an output not asked for.

    Args:
        inputs: of the command, by `identities`.
        force: permit that an output overwrites an input or a foreign file.

    Raises:
        CommandFailed: two outputs are one file; or an output is an input, or is there already and samserve did not
            write it.
        OSError: an output that is there cannot be read.
    """
    written: dict[FileIdentity, Path] = {}
    for path in outputs:
        if path is None or _is_device(path):
            continue
        identity = _identity(path)
        other = written.setdefault(identity, path)
        if other is not path:
            raise CommandFailed(f"{other} and {path} are the same output file; give each a name of its own")
        if not force and identity in inputs:
            raise CommandFailed(f"{path} is an input; write to another file, or add --force to overwrite it")
        if not force and not is_replaceable(path):
            raise CommandFailed(
                f"{path} exists and was not written by samserve; write to another file, or add --force to overwrite it"
            )


def is_replaceable(path: Path) -> bool:
    """Whether a file is missing or empty, or was written by samserve.

    Raises:
        OSError: it cannot be read.
    """
    return not path.exists() or path.stat().st_size == 0 or is_own(path)


def is_own(path: Path) -> bool:
    """Whether samserve wrote a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        parts = file.read(_SEARCHED_BYTES)
        if size > len(parts):
            file.seek(max(len(parts), size - _SEARCHED_BYTES))
            parts += file.read()
    return SIGNATURE.encode() in parts or parts.startswith(_RECORD_OF_0_1)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written, with its suffix; it becomes `path` at the end, unless something fails.

    Through a symbolic link the file that it points to is replaced, and the link stays.

    Raises:
        OSError: it cannot be written.
    """
    if _is_device(path):
        yield path
        return
    target = Path(os.path.realpath(path))
    # A short name: that of the output may be as long as names can be.
    temporary = target.with_name(f".samserve-{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        # Fails here, with the name that the user knows, where the folder cannot be written to.
        try:
            temporary.touch()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with unfinished(path) as temporary:
        temporary.write_bytes(data)


def _identity(path: Path) -> FileIdentity:
    try:
        status = path.stat()
    except OSError:
        # Not there yet: what it is called.
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def printable(name: str) -> str:
    """A file's name as valid Unicode: bytes that are none become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _is_device(path: Path) -> bool:
    """Whether it is a pipe, a terminal or the like, which nothing can be written beside."""
    return path.exists() and not path.is_file()
