"""Pixels that are not RGB become it in bands: no pixel differs for that, and memory stays within what is promised."""

import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from samserve.adapters.images import samples
from samserve.adapters.images.files import OpenedImage
from samserve.adapters.images.pixels import upright_rgb
from samserve.adapters.images.reduced_file import ReducedFile

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B")


def photo(mode: str, width: int, height: int, seed: int, transparency: int | None = None) -> Image.Image:
    """Noise, with this transparent entry of the palette."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode.startswith("I;16"):
        image = Image.frombytes(mode, (width, height), noise[..., :2].tobytes())
    elif mode in ("LA", "PA"):
        image = Image.merge("LA", [Image.fromarray(noise[..., band]) for band in (0, 1)]).convert(mode)
    else:
        image = Image.fromarray(noise, "RGBA").convert(mode)
    if transparency is not None and mode == "P":
        image.info["transparency"] = transparency
    return image


@given(
    mode=st.sampled_from(MODES),
    width=st.integers(1, 12),
    height=st.integers(1, 12),
    seed=st.integers(0, 99),
    orientation=st.integers(1, 8),
    transparency=st.none() | st.integers(0, 255),
    band_pixels=st.integers(1, 80),
)
def test_an_image_in_bands_is_the_image(
    mode: str, width: int, height: int, seed: int, orientation: int, transparency: int | None, band_pixels: int
) -> None:
    images = [
        OpenedImage(photo(mode, width, height, seed, transparency), ReducedFile(b""), orientation) for _ in range(2)
    ]
    whole, _ = upright_rgb(images[0])
    with mock.patch.object(samples, "BAND_PIXELS", band_pixels):
        banded, _ = upright_rgb(images[1])
    assert banded.mode == whole.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(banded), np.asarray(whole))


# The most that a process has taken never falls: each photo has a process of its own. (`ru_maxrss` would begin with what
# the process took that started it.)
TAKEN = """
import asyncio, re, sys
from samserve.adapters.images.decoder import PillowImageDecoder
decoder = PillowImageDecoder(max_pixels=10**8, workers=1)
def taken(path):
    asyncio.run(decoder.decode(open(path, "rb").read(), 64))
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print(-taken(sys.argv[1]) + taken(sys.argv[2]))
"""


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_converting_and_turning_a_photo_takes_eight_bytes_a_pixel(tmp_path: Path, mode: str) -> None:
    paths = [tmp_path / "small", tmp_path / "large"]
    sides = (64, 4096)
    for path, side in zip(paths, sides, strict=True):
        image = photo(mode, 1, 1, 0).resize((side, side))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        more = {"transparency": 0} if mode == "P" else {}
        image.save(path, "JPEG" if mode == "CMYK" else "PNG", exif=exif, **more)
    taken = subprocess.run([sys.executable, "-c", TAKEN, *paths], capture_output=True, check=True, text=True)
    assert int(taken.stdout) < 9 * sides[1] ** 2
