"""Output files of commands."""

import argparse
from pathlib import Path


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
