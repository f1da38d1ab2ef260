"""The files that commands write."""

import argparse
from pathlib import Path


def output_file(text: str) -> Path:
    """A path that can be written to, as the type of a flag: told before the work and not after it.

    Raises:
        argparse.ArgumentTypeError: it is a folder, or there is no folder for it.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"folder {path.parent} does not exist; create it first")
    return path
