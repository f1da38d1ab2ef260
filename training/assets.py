"""Freely licensed pictures for the scenes, taken from Debian packages (see SOURCES.md).

    python -m training assets

downloads and unpacks the packages (on Debian or Ubuntu, no root needed) and leaves

    runs/photos/*.jpg    photographs and painted wallpapers, longest side at most 1280
    runs/cutouts/*.png   things on a transparent ground (RGBA), longest side at most 256
"""

import hashlib
import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

PACKAGES = (
    "fonts-noto-color-emoji",
    "gcompris-qt-data",
    "gnome-backgrounds",
    "gnome-taquin",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "openclipart-png",
    "palapeli-data",
    "plasma-workspace-wallpapers",
    "sway-backgrounds",
    "tuxpaint-data",
    "tuxpaint-stamps-default",
    "ukui-wallpapers",
)
PICTURE_FOLDERS = (
    "backgrounds",
    "wallpapers",
    "tuxpaint/stamps",
    "tuxpaint/templates",
    "gnome-taquin",
    "palapeli",
)
PHOTO_SIDE = 1280
CUTOUT_SIDE = 256
CLIP_ARTS = 1500
EMOJI = [*range(0x1F300, 0x1F5FF), *range(0x1F600, 0x1F64F), *range(0x1F680, 0x1F6FF), *range(0x1F900, 0x1F9FF)]
PICTURE = re.compile(rb"RIFF....WEBPVP8|\xff\xd8\xff|\x89PNG\r\n\x1a\n", re.DOTALL)


def install(packages: Path) -> None:
    """Downloads the Debian packages and unpacks them under `packages`."""
    packages.mkdir(parents=True, exist_ok=True)
    for package in tqdm(PACKAGES, desc="packages"):
        subprocess.run(["apt-get", "download", "-qq", package], cwd=packages, check=True)
        for archive in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, packages], check=True)
            archive.unlink()


def _files(folder: Path) -> Iterator[bytes]:
    """The picture files below a folder; of a wallpaper in many sizes only the largest."""
    pictures = [p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}]
    largest: dict[Path, Path] = {}
    for path in sorted(pictures):
        wallpaper = path.parent if path.parent.name.startswith("images") else path
        if wallpaper not in largest or path.stat().st_size > largest[wallpaper].stat().st_size:
            largest[wallpaper] = path
    for path in largest.values():
        yield path.read_bytes()


def _resource_pictures(folder: Path) -> Iterator[bytes]:
    """The pictures inside Qt resource containers, found by their magic numbers."""
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


def is_cutout(image: Image.Image) -> bool:
    """Whether a picture shows a thing on a transparent ground."""
    if image.mode != "RGBA" or min(image.size) < 24:
        return False
    covered = float((np.asarray(image)[..., 3] > 127).mean())
    return 0.08 < covered < 0.95


def is_photo(image: Image.Image) -> bool:
    """Whether a picture fills its frame and is neither small nor nearly empty of detail."""
    if min(image.size) < 300 or (image.mode == "RGBA" and np.asarray(image)[..., 3].min() < 255):
        return False
    small = np.asarray(image.convert("L").resize((256, 256)), dtype=np.float32)
    detail = np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()
    return bool(detail > 3.0)


def _emoji(font_file: Path) -> Iterator[Image.Image]:
    font = ImageFont.truetype(str(font_file), size=109)
    for code in EMOJI:
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
        if is_cutout(image):
            yield image


def prepare(packages: Path, photos: Path, cutouts: Path) -> tuple[int, int]:
    """Writes photographs and cutouts under names of their content; returns how many of each there are."""
    for folder in (photos, cutouts):
        folder.mkdir(parents=True, exist_ok=True)
    share = packages / "usr/share"
    clip_arts = sorted((share / "openclipart").rglob("*.png"))
    step = max(1, len(clip_arts) // CLIP_ARTS)

    def contents() -> Iterator[bytes]:
        for folder in PICTURE_FOLDERS:
            yield from _files(share / folder)
        yield from _resource_pictures(share / "gcompris-qt")
        yield from (path.read_bytes() for path in clip_arts[::step])

    for content in tqdm(contents(), desc="pictures"):
        image = _open(content)
        name = hashlib.sha256(content).hexdigest()[:16]
        if image is None:
            continue
        if is_cutout(image):
            image = image.crop(image.getchannel("A").getbbox())
            image.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE))
            image.save(cutouts / f"{name}.png")
        elif is_photo(image):
            image = image.convert("RGB")
            image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
            image.save(photos / f"{name}.jpg", quality=92)
    for code, image in enumerate(_emoji(next(packages.rglob("NotoColorEmoji.ttf")))):
        image.crop(image.getbbox()).save(cutouts / f"emoji-{code}.png")
    return len(list(photos.iterdir())), len(list(cutouts.iterdir()))


def make_assets(work_dir: Path) -> None:
    """Downloads what is not there yet, and sorts it into photographs and cutouts."""
    packages = work_dir / "packages"
    if not packages.exists():
        install(packages)
    photos, cutouts = prepare(packages, work_dir / "photos", work_dir / "cutouts")
    print(f"{photos} photographs, {cutouts} cutouts")
