"""Every kind of file has a decided behaviour, and bad ones are refused from the header where that is possible."""

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox, Size
from tests.support.png import chunk, png

SIDE = 64
RGB = np.random.default_rng(7).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def file_of(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.fixture
async def decoder() -> AsyncIterator[PillowImageDecoder]:
    decoder = PillowImageDecoder(max_pixels=1_000_000, workers=1)
    yield decoder
    decoder.close()


async def decoded(decoder: PillowImageDecoder, data: bytes) -> npt.NDArray[np.uint8]:
    """The valid part of the encoder's input as `[H, W, 3]`, after checking that header and pixels agree."""
    image = await decoder.decode(data, SIDE)
    assert await decoder.probe(data) == image.frame.original_size
    height, width = image.frame.input_size
    assert image.pixels.shape == (3, SIDE, SIDE)
    assert not image.pixels[:, height:].any()
    assert not image.pixels[:, :, width:].any()
    return image.pixels[:, :height, :width].transpose(1, 2, 0)


def resized(image: Image.Image) -> npt.NDArray[np.uint8]:
    scale = SIDE / max(image.size)
    width, height = (int(side * scale + 0.5) for side in image.size)
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
async def test_every_format_is_decoded_and_resized_as_sam_does(decoder: PillowImageDecoder, file_format: str) -> None:
    data = file_of(Image.fromarray(RGB), file_format)
    with Image.open(io.BytesIO(data)) as expected:
        np.testing.assert_array_equal(await decoded(decoder, data), resized(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
async def test_exif_orientation_is_applied(decoder: PillowImageDecoder, file_format: str, orientation: int) -> None:
    data = file_of(Image.fromarray(RGB), file_format, exif=exif_with(orientation))
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(await decoded(decoder, data), resized(upright))
    assert await decoder.probe(data) == (Size(40, 24) if orientation >= 5 else Size(24, 40))


@pytest.mark.parametrize("orientation", [1, 6])
async def test_a_crop_is_taken_after_exif_orientation(decoder: PillowImageDecoder, orientation: int) -> None:
    photo = Image.fromarray(RGB)
    data = file_of(photo, exif=exif_with(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    box = CropBox(5, 3, 17, 22)
    image = await decoder.decode(data, SIDE, box)
    assert image.frame.original_size == box.size == Size(19, 12)
    height, width = image.frame.input_size
    np.testing.assert_array_equal(
        image.pixels[:, :height, :width].transpose(1, 2, 0), resized(upright.crop((5, 3, 17, 22)))
    )


async def test_grey_becomes_three_equal_channels(decoder: PillowImageDecoder) -> None:
    grey = Image.fromarray(RGB[:, :, 0])
    np.testing.assert_array_equal(await decoded(decoder, file_of(grey)), resized(grey))


async def test_bilevel_becomes_black_and_white(decoder: PillowImageDecoder) -> None:
    pixels = await decoded(decoder, file_of(Image.new("1", (8, 8), 1)))
    assert (pixels == 255).all()


async def test_palette_images_are_converted_to_rgb(decoder: PillowImageDecoder) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(await decoded(decoder, file_of(palette)), resized(palette))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
async def test_transparent_pixels_become_white(decoder: PillowImageDecoder, mode: str) -> None:
    image = Image.new(mode, (SIDE, SIDE), (30, 0) if mode == "LA" else (30, 20, 10, 0))
    image.paste(Image.new(mode, (32, SIDE), (90, 255) if mode == "LA" else (90, 90, 90, 255)))
    pixels = await decoded(decoder, file_of(image))
    assert (pixels[:, :32] == 90).all()
    assert (pixels[:, 32:] == 255).all()


async def test_transparent_palette_entries_are_white(decoder: PillowImageDecoder) -> None:
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert (await decoded(decoder, file_of(image, transparency=0)) == 255).all()


async def test_cmyk_is_converted(decoder: PillowImageDecoder) -> None:
    data = file_of(Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0)), "JPEG")
    red, green, blue = (await decoded(decoder, data))[0, 0]
    assert red < 10 < 245 < green
    assert blue > 245


async def test_16_bit_grey_keeps_its_high_bits(decoder: PillowImageDecoder) -> None:
    values = np.full((SIDE, SIDE), 0x80FF, dtype=np.uint16)
    assert (await decoded(decoder, file_of(Image.fromarray(values))) == 0x80).all()


async def test_16_bit_rgb_keeps_its_high_bits(decoder: PillowImageDecoder) -> None:
    assert (await decoded(decoder, png(SIDE, SIDE, bit_depth=16, pixel=b"\x80\xff" * 3)) == 0x80).all()


async def test_an_animation_gives_its_first_frame(decoder: PillowImageDecoder) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("white", "black")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (await decoded(decoder, data) > 250).all()


async def test_16_bit_samples_that_use_12_bits_are_read_as_12_and_noted(decoder: PillowImageDecoder) -> None:
    data = file_of(Image.fromarray(np.full((SIDE, SIDE), 0x80F, dtype=np.uint16)))
    assert (await decoded(decoder, data) == 0x80).all()
    (note,) = (await decoder.decode(data, SIDE)).notes
    assert "12 bits" in note
    assert not (await decoder.decode(file_of(Image.fromarray(RGB)), SIDE)).notes


async def test_samples_of_no_known_range_are_refused(decoder: PillowImageDecoder) -> None:
    data = file_of(Image.new("I", (8, 8), 100_000), "TIFF")
    with pytest.raises(InvalidImage, match="samples up to 100000"):
        await decoder.decode(data, SIDE)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"hello world" * 100, b"%PDF-1.7", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
async def test_a_file_that_is_not_an_image_is_refused(decoder: PillowImageDecoder, data: bytes) -> None:
    for refusal in (decoder.probe(data), decoder.decode(data, SIDE), decoder.thumbnail(data)):
        with pytest.raises(InvalidImage) as refused:
            await refusal
        assert refused.value.field == "data"


@pytest.mark.parametrize(("width", "height"), [(40_000, 40_000), (1001, 1000), (2**31 - 1, 2**31 - 1), (70_000, 1)])
async def test_too_many_declared_pixels_are_refused_from_the_header(
    decoder: PillowImageDecoder, width: int, height: int
) -> None:
    with pytest.raises(InvalidImage, match="pixels"):
        await decoder.probe(png(width, height))


async def test_jpeg_of_very_many_scans_is_refused_from_the_header(decoder: PillowImageDecoder) -> None:
    data = file_of(Image.fromarray(RGB), "JPEG", progressive=True)
    scan_start = data.index(b"\xff\xda")
    bomb = data[:-2] + data[scan_start:-2] * 40 + data[-2:]
    assert (await decoder.decode(data, SIDE)).frame.original_size == Size(24, 40)
    with pytest.raises(InvalidImage, match="scans"):
        await decoder.probe(bomb)


def of_tiny_parts(kind: str, count: int) -> bytes:
    """A sound file with so many parts more than it needs."""
    rgb = Image.fromarray(RGB)
    jpeg, png, gif = (file_of(rgb, file_format) for file_format in ("JPEG", "PNG", "GIF"))
    blocks = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    rows = zlib.compress(b"\0" * (3 * 40 + 1) * 24, 0)
    return {
        "JPEG segments": jpeg[:2] + b"\xff\xe5\0\2" * count + jpeg[2:],
        "JPEG fill bytes": jpeg[:2] + b"\xff" * count + jpeg[2:],
        "PNG chunks before the pixels": png[:33] + chunk(b"teXt") * count + png[33:],
        "PNG chunks after the pixels": png[:-12] + chunk(b"teXt") * count + png[-12:],
        "PNG pixels byte by byte": png[:33]
        + b"".join(chunk(b"IDAT", rows[index : index + 1]) for index in range(len(rows)))
        + chunk(b"IDAT") * count
        + png[-12:],
        "GIF comment byte by byte": gif[:blocks] + b"\x21\xfe" + b"\1x" * count + b"\0" + gif[blocks:],
    }[kind]


PARTS = (
    "JPEG segments",
    "JPEG fill bytes",
    "PNG chunks before the pixels",
    "PNG chunks after the pixels",
    "PNG pixels byte by byte",
    "GIF comment byte by byte",
)


@pytest.mark.parametrize("kind", PARTS)
async def test_files_of_very_many_tiny_parts_are_refused(decoder: PillowImageDecoder, kind: str) -> None:
    if kind != "PNG pixels byte by byte":
        assert (await decoder.decode(of_tiny_parts(kind, 100), SIDE)).frame.original_size == Size(24, 40)
    for work in (decoder.decode, lambda data, side: decoder.thumbnail(data)):
        with pytest.raises(InvalidImage, match="too many tiny"):
            await work(of_tiny_parts(kind, 100_000), SIDE)


async def test_exif_records_of_a_jpeg_cost_nothing_however_many(decoder: PillowImageDecoder) -> None:
    data = file_of(Image.fromarray(RGB), "JPEG")
    record = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + bytes(65_527)
    assert await decoder.probe(data[:2] + record * 400 + data[2:]) == Size(24, 40)


async def test_large_ordinary_files_are_accepted(decoder: PillowImageDecoder) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (900, 1100, 3), dtype=np.uint8))
    profile = bytes(8 << 20)
    for data in (
        file_of(noise),
        file_of(noise, "JPEG", icc_profile=profile, quality=95),
        file_of(noise, "TIFF", tiffinfo={278: 1}),
    ):
        assert (await decoder.decode(data, SIDE)).frame.original_size == Size(900, 1100)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
async def test_truncated_files_are_refused(decoder: PillowImageDecoder, file_format: str) -> None:
    data = file_of(Image.fromarray(RGB), file_format)
    for length in range(1, len(data) - len(data) // 4, max(1, len(data) // 40)):
        with pytest.raises(InvalidImage):
            await decoder.decode(data[:length], SIDE)


FILES = [file_of(Image.fromarray(RGB), file_format) for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_corrupt_files_are_decoded_or_refused_as_invalid_images(data: bytes, damage: list[tuple[float, int]]) -> None:
    corrupt = bytearray(data)
    for position, value in damage:
        corrupt[int(position * (len(data) - 1))] = value
    decoder = PillowImageDecoder(max_pixels=1_000_000, workers=1)
    try:
        pixels = asyncio.run(decoder.decode(bytes(corrupt), SIDE)).pixels
        assert pixels.shape == (3, SIDE, SIDE)
    except InvalidImage:
        pass
    finally:
        decoder.close()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (2, 50_000)])
async def test_extreme_shapes_are_decoded(decoder: PillowImageDecoder, width: int, height: int) -> None:
    pixels = await decoded(decoder, file_of(Image.new("RGB", (width, height), "red")))
    assert max(pixels.shape[:2]) == SIDE
    assert (pixels[0, 0] == (255, 0, 0)).all()
