"""Freely licensed photographs from Debian packages (see SOURCES.md).

    python -m training assets

Downloads and unpacks the packages (on Debian or Ubuntu, without root) to runs/photos/*.jpg: photographs and painted
wallpapers with a longest side of at most 1280 pixels.
"""

import hashlib
import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

PACKAGES = (
    "gcompris-qt-data",
    "gnome-backgrounds",
    "gnome-taquin",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "palapeli-data",
    "plasma-workspace-wallpapers",
    "sway-backgrounds",
    "tuxpaint-data",
    "ukui-wallpapers",
)
PICTURE_FOLDERS = (
    "backgrounds",
    "wallpapers",
    "tuxpaint/templates",
    "gnome-taquin",
    "palapeli",
)
PHOTO_SIDE = 1280
PICTURE = re.compile(rb"RIFF....WEBPVP8|\xff\xd8\xff|\x89PNG\r\n\x1a\n", re.DOTALL)


def install(packages: Path) -> None:
    """Download the Debian packages and unpack them under `packages`."""
    packages.mkdir(parents=True, exist_ok=True)
    for package in tqdm(PACKAGES, desc="packages"):
        subprocess.run(["apt-get", "download", "-qq", package], cwd=packages, check=True)
        for archive in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, packages], check=True)
            archive.unlink()


def _files(folder: Path) -> Iterator[bytes]:
    """The image files below a folder. Of a wallpaper in several sizes, only the largest."""
    pictures = [p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}]
    largest: dict[Path, Path] = {}
    for path in sorted(pictures):
        wallpaper = path.parent if path.parent.name.startswith("images") else path
        if wallpaper not in largest or path.stat().st_size > largest[wallpaper].stat().st_size:
            largest[wallpaper] = path
    for path in largest.values():
        yield path.read_bytes()


def _resource_pictures(folder: Path) -> Iterator[bytes]:
    """The images in Qt resource containers, found by their magic numbers."""
    for path in sorted(folder.rglob("*.rcc")):
        content = path.read_bytes()
        starts = [match.start() for match in PICTURE.finditer(content)]
        for start, end in zip(starts, [*starts[1:], len(content)], strict=False):
            yield content[start:end]


def _open(content: bytes) -> Image.Image | None:
    try:
        image = Image.open(io.BytesIO(content))
        image.draft("RGB", (PHOTO_SIDE, PHOTO_SIDE))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return image.convert("RGBA" if image.mode in {"RGBA", "LA", "P"} else "RGB")


def is_photo(image: Image.Image) -> bool:
    """Return True if an image fills its frame and is neither small nor nearly empty of detail."""
    if min(image.size) < 300 or (image.mode == "RGBA" and np.asarray(image)[..., 3].min() < 255):
        return False
    small = np.asarray(image.convert("L").resize((256, 256)), dtype=np.float32)
    detail = np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()
    return bool(detail > 3.0)


def prepare(packages: Path, photos: Path) -> int:
    """Write the photographs under names derived from their content. Returns their number."""
    photos.mkdir(parents=True, exist_ok=True)
    share = packages / "usr/share"

    def contents() -> Iterator[bytes]:
        for folder in PICTURE_FOLDERS:
            yield from _files(share / folder)
        yield from _resource_pictures(share / "gcompris-qt")

    for content in tqdm(contents(), desc="pictures"):
        image = _open(content)
        if image is not None and is_photo(image):
            image = image.convert("RGB")
            image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
            image.save(photos / f"{hashlib.sha256(content).hexdigest()[:16]}.jpg", quality=92)
    return len(list(photos.iterdir()))


def make_assets(work_dir: Path) -> None:
    """Download missing packages and select the photographs."""
    packages = work_dir / "packages"
    if not packages.exists():
        install(packages)
    print(f"{prepare(packages, work_dir / 'photos')} photographs")
