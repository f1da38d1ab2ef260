"""Every kind of file that a format allows gives the pixels that the format's specification states."""

import contextlib
import io
import struct
import zlib
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from samserve.adapters.images.files import UnservedImage, open_image
from samserve.adapters.images.pixels import upright_rgb
from tests.support.png import chunk, png_of
from tests.support.tiff import tiff_of

RNG = np.random.default_rng(3)
NOISE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE).resize((120, 80))
GREY, TRUE_COLOR, PALETTE, GREY_ALPHA, TRUE_COLOR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, TRUE_COLOR: 3, PALETTE: 1, GREY_ALPHA: 2, TRUE_COLOR_ALPHA: 4}
KINDS = [
    *((GREY, depth) for depth in (1, 2, 4, 8, 16)),
    *((PALETTE, depth) for depth in (1, 2, 4, 8)),
    *((kind, depth) for kind in (TRUE_COLOR, GREY_ALPHA, TRUE_COLOR_ALPHA) for depth in (8, 16)),
]
OPAQUE_KINDS = [(kind, depth, False) for kind, depth in KINDS]
# The format forbids tRNS beside alpha.
TRANSPARENT_KINDS = [(kind, depth, True) for kind, depth in KINDS if kind not in (GREY_ALPHA, TRUE_COLOR_ALPHA)]


def read(data: bytes) -> npt.NDArray[np.uint8]:
    opened = open_image(data, 10**7)
    size = opened.size
    rgb = np.asarray(upright_rgb(opened)[0])
    assert rgb.shape == (*size, 3)
    return rgb


def notes(data: bytes) -> tuple[str, ...]:
    return upright_rgb(open_image(data))[1]


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def laid_over_white(rgb: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    share = alpha[..., None] / 255
    return np.asarray(rgb * share + 255 * (1 - share))


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "Adam7"])
@pytest.mark.parametrize(("color_type", "depth", "transparent"), [*OPAQUE_KINDS, *TRANSPARENT_KINDS])
def test_png(color_type: int, depth: int, transparent: bool, interlaced: bool) -> None:
    most = (1 << depth) - 1
    samples = RNG.integers(0, most + 1, (13, 21, CHANNELS[color_type]))
    # So that 16 bits are in use.
    samples[0, 0] = most
    # Two colors whose high bytes are the same.
    samples[5], samples[6] = min(most, 0x80FF), min(most, 0x8001)
    palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    alphas = RNG.integers(0, 256, 256, dtype=np.uint8)
    before = chunk(b"PLTE", palette[: most + 1].tobytes()) if color_type == PALETTE else b""
    if transparent:
        key = samples[5, 0].astype(">u2").tobytes()
        before += chunk(b"tRNS", alphas[: most + 1].tobytes() if color_type == PALETTE else key)
    seen = read(png_of(samples, depth, color_type, interlaced=interlaced, before=before))
    scaled = samples >> 8 if depth == 16 else samples * 255 // most
    expected: npt.NDArray[Any]
    if color_type == PALETTE:
        opacity = alphas[samples[..., 0]] if transparent else np.full(samples.shape[:2], 255)
        expected = laid_over_white(palette[samples[..., 0]], opacity)
    elif color_type in (GREY_ALPHA, TRUE_COLOR_ALPHA):
        expected = laid_over_white(np.broadcast_to(scaled[..., :-1], (13, 21, 3)), scaled[..., -1])
    else:
        expected = np.broadcast_to(scaled, (13, 21, 3)).copy()
        if transparent:
            expected[(samples == samples[5, 0]).all(axis=-1)] = 255
    np.testing.assert_allclose(seen, expected, atol=1 if expected.dtype.kind == "f" else 0)


@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    form=st.sampled_from(["PNG grey", "PNG RGB", "PNG LA", "PNG RGBA", "TIFF grey", "TIFF RGB", "TIFF RGBA"]),
    order=st.sampled_from(["<", ">"]),
    planar=st.booleans(),
    deflate=st.booleans(),
)
def test_16_bit_files_that_use_fewer_bits_look_as_with_8(
    bits: int, form: str, order: Literal["<", ">"], planar: bool, deflate: bool
) -> None:
    channels = {"grey": 1, "RGB": 3, "LA": 2, "RGBA": 4}[form.split()[1]]
    eight = np.random.default_rng(bits).integers(0, 256, (9, 14, channels), dtype=np.uint16)
    eight[0, 0] = 255
    low = np.random.default_rng(1).integers(0, 1 << (bits - 8), eight.shape, dtype=np.uint16)
    samples = (eight << (bits - 8)) | low
    if form.startswith("PNG"):
        data = png_of(samples, 16, {1: GREY, 2: GREY_ALPHA, 3: TRUE_COLOR, 4: TRUE_COLOR_ALPHA}[channels])
    else:
        tags = {338: (2,)} if channels == 4 else {}
        in_planes = planar and channels > 1 and bits == 16
        data = tiff_of(samples, order=order, planar=in_planes, deflate=deflate, tags=tags)
    rgb = np.broadcast_to(eight[..., :-1] if channels in (2, 4) else eight, (9, 14, 3))
    expected = laid_over_white(rgb, eight[..., -1]) if channels in (2, 4) else rgb
    np.testing.assert_allclose(read(data), expected, atol=1 if channels in (2, 4) else 0)
    assert [f"{bits} bits" in note for note in notes(data)] == ([] if bits == 16 else [True])


def test_planes_of_16_bits_that_use_fewer_are_refused() -> None:
    with pytest.raises(UnservedImage, match="store the samples of a pixel together"):
        read(tiff_of(np.full((4, 4, 3), 0x0FFF, np.uint16), planar=True))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(
    ("dtype", "order"),
    # Pillow does not read big-endian uint32.
    [
        (np.float32, "<"),
        (np.float32, ">"),
        (np.int32, "<"),
        (np.int32, ">"),
        (np.uint32, "<"),
        (np.int16, "<"),
        (np.int16, ">"),
    ],
)
def test_deep_grey_tiff_is_read_by_the_range_of_its_samples(
    dtype: Any, order: Literal["<", ">"], deflate: bool
) -> None:
    eight = RNG.integers(0, 256, (9, 14, 1))
    eight[0, 0] = 255
    ranges: list[npt.NDArray[Any]] = [eight, eight << 4]
    if dtype is np.float32:
        ranges.append(eight / 255)
    for samples in ranges:
        data = tiff_of(samples.astype(dtype), order=order, deflate=deflate)
        np.testing.assert_allclose(read(data), np.broadcast_to(eight, (9, 14, 3)), atol=1)
        assert len(notes(data)) == 1


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 70_000.0])
def test_samples_of_no_known_range_are_refused(bad: float) -> None:
    samples = np.zeros((4, 4, 1), np.float32)
    samples[1, 1] = bad
    with pytest.raises(UnservedImage, match="scale them to 0 to 65,535"):
        read(tiff_of(samples))


def test_white_may_be_zero_in_16_bits_too() -> None:
    samples = np.full((4, 4, 1), 0x3000, np.uint16)
    samples[0, 0] = 0xFFFF
    assert (read(tiff_of(samples, photometric=0))[1:] == 0xFF - 0x30).all()


EXIF = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
UPRIGHT_EXIF = EXIF.replace(b"\x06\0\0\0", b"\x09\0\0\0")
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
XMP_ELEMENT = b"<rdf:Description><tiff:Orientation>8</tiff:Orientation></rdf:Description>"
PROFILE = b"\nexif\n      32\n" + EXIF.hex().encode() + b"\n"
SAMPLES = np.arange(2 * 3 * 3).reshape(2, 3, 3)
I_TEXT = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
I_TEXT_Z = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)
SIX, EIGHT = np.rot90(SAMPLES, -1), np.rot90(SAMPLES, 1)


def jpeg_with(*segments: bytes) -> bytes:
    data = saved(PHOTO, "JPEG")
    parts = (b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments)
    return data[:2] + b"".join(parts) + data[2:]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (chunk(b"eXIf", EXIF), b"", SIX),
        (b"", chunk(b"eXIf", EXIF), SIX),
        (b"", chunk(b"eXIf", b"Exif\0\0" + EXIF), SIX),
        (chunk(b"iTXt", I_TEXT), b"", EIGHT),
        (b"", chunk(b"iTXt", I_TEXT_Z), EIGHT),
        (chunk(b"tEXt", b"Raw profile type exif\0" + PROFILE), b"", SIX),
        (chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(PROFILE)), b"", SIX),
        (chunk(b"iTXt", I_TEXT), chunk(b"eXIf", EXIF), SIX),
        (chunk(b"iTXt", I_TEXT), chunk(b"eXIf", UPRIGHT_EXIF), EIGHT),
        (chunk(b"eXIf", b"junk"), b"", SAMPLES),
    ],
)
def test_orientation_of_a_png_is_found_in_each_block(before: bytes, after: bytes, expected: npt.NDArray[Any]) -> None:
    np.testing.assert_array_equal(read(png_of(SAMPLES, 8, TRUE_COLOR, before=before, after=after)), expected)


@pytest.mark.parametrize("xmp", [XMP, XMP_ELEMENT])
def test_orientation_in_xmp_counts_where_exif_states_none(xmp: bytes) -> None:
    turned = np.rot90(read(jpeg_with()))
    packet = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    np.testing.assert_array_equal(read(jpeg_with(packet)), turned)
    np.testing.assert_array_equal(read(jpeg_with(b"Exif\0\0" + UPRIGHT_EXIF, packet)), turned)
    np.testing.assert_array_equal(read(jpeg_with(packet, b"Exif\0\0" + EXIF)), np.rot90(read(jpeg_with()), -1))
    webp = Image.fromarray(SAMPLES.astype(np.uint8))
    np.testing.assert_array_equal(read(saved(webp, "WEBP", lossless=True, xmp=xmp)), EIGHT)
    np.testing.assert_array_equal(read(saved(webp, "WEBP", lossless=True, xmp=xmp, exif=EXIF)), SIX)
    for deflate in (False, True):
        samples = SAMPLES.astype(np.uint8)
        np.testing.assert_array_equal(read(tiff_of(samples, xmp=xmp, deflate=deflate)), EIGHT)
        np.testing.assert_array_equal(read(tiff_of(samples, xmp=xmp, deflate=deflate, tags={274: (6,)})), SIX)
        np.testing.assert_array_equal(read(tiff_of(samples, xmp=xmp, deflate=deflate, tags={274: (0,)})), EIGHT)


TRAILER = b"MotionPhoto_Data" + b"\xff\xda\xff\xd8Exif\0\0IEND" * 5000


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_what_lies_behind_the_image_changes_nothing(file_format: str) -> None:
    data = saved(PHOTO, file_format)
    np.testing.assert_array_equal(read(data + TRAILER), read(data))


def test_what_lies_in_metadata_is_not_counted_as_scans() -> None:
    data = jpeg_with(*(b"http://ns.adobe.com/xmp/extension/\0" + b"\xff\xda\xff\xd9" * 10_000 for _ in range(40)))
    np.testing.assert_array_equal(read(data), read(saved(PHOTO, "JPEG")))


def test_a_stack_of_pictures_gives_the_first_and_has_the_limits_of_one() -> None:
    pictures = [PHOTO.resize((60, 40)) for _ in range(30)]
    data = saved(PHOTO, "MPO", save_all=True, append_images=pictures, progressive=True)
    np.testing.assert_array_equal(read(data), read(saved(PHOTO, "JPEG", progressive=True)))
    start, end = data.index(b"\xff\xda"), data.index(b"\xff\xd9")
    with pytest.raises(UnservedImage, match="scans"):
        read(data[:end] + data[start:end] * 60 + data[end:])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("restart", [0, 1])
def test_jpeg(mode: str, progressive: bool, subsampling: int, restart: int) -> None:
    options = {"progressive": progressive, "subsampling": subsampling, "restart_marker_rows": restart}
    data = saved(PHOTO.convert(mode), "JPEG", quality=95, **options)
    with Image.open(io.BytesIO(data)) as expected:
        np.testing.assert_array_equal(read(data), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("bits", [8, 4])
def test_run_length_encoded_bmp(bits: int) -> None:
    indices = RNG.integers(0, 1 << bits, (50, 64))
    indices[:, 20:40] = 5
    palette = RNG.integers(0, 256, (1 << bits, 3), dtype=np.uint8)
    rows = b""
    for row in indices[::-1]:
        for index in row:
            rows += bytes((1, index if bits == 8 else index << 4))
        rows += b"\0\0"
    rows += b"\0\1"
    colors = b"".join(bytes((*color[::-1], 0)) for color in palette)
    offset = 54 + len(colors)
    header = struct.pack("<IiiHHIIiiII", 40, 64, 50, 1, bits, 1 if bits == 8 else 2, len(rows), 0, 0, 1 << bits, 0)
    data = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + colors + rows
    np.testing.assert_array_equal(read(data), palette[indices])
    with pytest.raises(Exception, match="runs"):
        read(data[: offset + 100])


def test_what_the_first_frame_of_a_gif_leaves_open_is_white() -> None:
    data = bytearray(saved(Image.new("RGB", (20, 10), (10, 200, 30)), "GIF"))
    data[6:10] = struct.pack("<HH", 30, 25)
    seen = read(bytes(data))
    assert seen.shape == (25, 30, 3)
    assert (seen[:10, :20] == (10, 200, 30)).all()
    assert (seen[10:] == 255).all()
    assert (seen[:, 20:] == 255).all()


@pytest.mark.parametrize(
    "compression", ["group3", "group4", "tiff_ccitt", "tiff_lzw", "packbits", "tiff_adobe_deflate"]
)
def test_bilevel_tiff(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(NOISE[..., 0] > 128)
    data = bytearray(saved(image, "TIFF", compression=compression))
    np.testing.assert_array_equal(read(bytes(data)), np.asarray(image.convert("RGB")))
    for position in range(8, 60):
        data[position] ^= 0x5A
    with contextlib.suppress(Exception):
        read(bytes(data))
    assert not capfd.readouterr().err


def test_cielab_tiff_is_converted() -> None:
    lab = np.asarray(cv2.cvtColor(NOISE.astype(np.float32) / 255, cv2.COLOR_RGB2Lab))
    stored = np.stack([lab[..., 0] * 2.55, lab[..., 1] % 256, lab[..., 2] % 256], axis=-1).round().astype(np.uint8)
    seen = read(tiff_of(stored, photometric=8)).astype(int)
    assert np.abs(seen - NOISE).mean() < 8


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_webp(lossless: bool, animated: bool, alpha: bool) -> None:
    image = PHOTO.copy()
    if alpha:
        image.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    more = {"save_all": True, "append_images": [PHOTO.rotate(180)]} if animated else {}
    data = saved(image, "WEBP", lossless=lossless, exact=True, quality=95, **more)
    with Image.open(io.BytesIO(data)) as first:
        pixels = np.asarray(first.convert("RGBA")).astype(float)
    np.testing.assert_allclose(read(data), laid_over_white(pixels[..., :3], pixels[..., 3]), atol=1)


def test_huge_canvases_and_tiles_are_refused_from_the_header() -> None:
    webp = bytearray(saved(PHOTO, "WEBP", exif=EXIF))
    webp[24:30] = b"\xff\xff\0\xff\xff\0"
    tile = {322: (60_000,), 323: (60_000,), 324: (8,), 325: (100,)}
    for data in (bytes(webp), tiff_of(NOISE, tags=tile)):
        with pytest.raises(UnservedImage, match="exceed the limit"):
            open_image(data, 10**7)


@pytest.mark.parametrize("precision", [12])
def test_a_kind_that_is_not_supported_is_named(precision: int) -> None:
    data = saved(PHOTO, "JPEG")
    frame = data.index(b"\xff\xc0") + 4
    with pytest.raises(UnservedImage, match="JPEG that is not supported"):
        read(data[:frame] + bytes((precision,)) + data[frame + 1 :])
