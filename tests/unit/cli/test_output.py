"""Where a command writes, and whether it reads what it is given, is known before anything is done.

Its outputs destroy neither inputs nor foreign files, and are there as a whole or not at all.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from samserve.cli import main
from samserve.cli.errors import CommandFailed
from samserve.cli.output import SIGNATURE, check_outputs, identities, is_own, unfinished, write_file
from samserve.cli.pictures.files import write_picture

PHOTO = Path(__file__).parents[3] / "docs" / "photos" / "coffee.jpg"
NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    "command",
    [
        ["segment", str(PHOTO), "--point", "1,1", "--server", NOWHERE, "--out"],
        ["segment", str(PHOTO), "--boxes", "boxes.json", "--server", NOWHERE, "--coco"],
        ["gaze", str(PHOTO), "--server", NOWHERE, "--out"],
        ["track", str(PHOTO), "--point", "1,1", "--server", NOWHERE, "--out"],
        ["demo", "--out"],
    ],
    ids=lambda command: " ".join((command[0], command[-1])),
)
def test_an_unwritable_output_is_reported_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, told in ((tmp_path / "missing" / "out.gif", "create it first"), (tmp_path, "is a folder")):
        with pytest.raises(SystemExit) as ended:
            main([*command, str(place)])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        assert told in line


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (0, "the photo cannot be read: empty"),
        (5, "the photo cannot be read: unsupported image format"),
        (5000, "the photo is truncated or corrupt"),
    ],
)
def test_gaze_says_that_a_file_is_no_photo(
    cut: int, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTO.read_bytes()[:cut])
    assert main(["gaze", str(broken), "--server", NOWHERE]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"samserve: {broken}: {reason}")
    assert "BytesIO" not in line


OUTPUTS = {
    "segment --out": ("segment", "photo.png", "--point", "1,1", "--out"),
    "segment --mask": ("segment", "photo.png", "--point", "1,1", "--mask"),
    "segment --cutout": ("segment", "photo.png", "--point", "1,1", "--cutout"),
    "segment --boxes --out": ("segment", "photo.png", "--boxes", "boxes.json", "--out"),
    "segment --boxes --coco": ("segment", "photo.png", "--boxes", "boxes.json", "--coco"),
    "gaze --out": ("gaze", "photo.png", "--out"),
    "track --out": ("track", "video.mp4", "--point", "1,1", "--out"),
    "track --coco": ("track", "video.mp4", "--point", "1,1", "--coco"),
    "demo --out": ("demo", "--image", "photo.png", "--out"),
}


def command(name: str, output: Path | str) -> list[str]:
    server = [] if name.startswith("demo") else ["--server", NOWHERE]
    return [*OUTPUTS[name], str(output), *server]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo, a video and detections; the working directory."""
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.png")
    (tmp_path / "video.mp4").write_bytes(b"a video")
    (tmp_path / "boxes.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def input_of(name: str) -> str:
    if name == "segment --boxes --coco":
        return "boxes.json"
    return "photo.png" if name == "demo --out" else OUTPUTS[name][1]


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "itself": lambda source, output: None,
    "symbolic link": lambda source, output: output.symlink_to(source),
    "hard link": lambda source, output: output.hardlink_to(source),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_is_an_input_is_refused(
    name: str, link: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = inputs / input_of(name)
    content = source.read_bytes()
    output = source if link == "itself" else inputs / f"link{source.suffix}"
    LINKS[link](source, output)
    assert main(command(name, os.path.relpath(output))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{output.name} is an input; write to another file, or add --force" in line
    assert source.read_bytes() == content


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_another_program_wrote_is_refused(
    name: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix = ".json" if name.endswith("--coco") else ".mp4" if name == "track --out" else ".png"
    output = inputs / f"theirs{suffix}"
    output.write_text("years of work")
    assert main(command(name, output)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{output} exists and was not written by samserve; write to another file, or add --force" in line
    assert output.read_text() == "years of work"


def test_force_permits_what_is_refused_otherwise(inputs: Path) -> None:
    theirs = inputs / "theirs.txt"
    theirs.write_text("x")
    photo = inputs / "photo.png"
    for output in (photo, theirs):
        with pytest.raises(CommandFailed):
            check_outputs([output], identities([photo]), force=False)
        check_outputs([output], identities([photo]), force=True)


def test_two_outputs_are_two_files(inputs: Path) -> None:
    for force in (False, True):
        with pytest.raises(CommandFailed, match="same output file"):
            check_outputs([inputs / "a.png", None, inputs / "sub" / ".." / "a.png"], set(), force=force)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".tif", ".TIFF"])
def test_a_picture_has_the_format_of_its_name_and_may_be_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    write_picture(path, Image.effect_noise((700, 500), 80).convert("RGB"))
    with Image.open(path) as picture:
        assert picture.format == {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}.get(
            suffix.lower(), "JPEG"
        )
    assert is_own(path)
    check_outputs([path], set(), force=False)


def test_records_of_the_first_version_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"image": {"image_id": "sha256:12", "width": 3}, "annotations": []}')
    assert is_own(path)


def test_an_output_that_fails_leaves_the_last_one_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    write_file(path, b"last")

    def fail() -> None:
        with unfinished(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"last"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_goes_through_a_link_and_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "out.bin", tmp_path / "link.bin"
    target.write_bytes(SIGNATURE.encode())
    target.chmod(0o640)
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_names_as_long_as_names_can_be_are_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 251}.png"
    write_file(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_device_is_written_to(tmp_path: Path) -> None:
    check_outputs([Path("/dev/null")], set(), force=False)
    write_file(Path("/dev/null"), b"x")
    assert not Path("/dev/null").is_file()


def test_a_full_or_locked_folder_is_told_by_the_outputs_name(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "out.png"
    path.parent.mkdir()
    shutil.rmtree(path.parent)
    with pytest.raises(FileNotFoundError) as caught:
        write_file(path, b"x")
    assert caught.value.filename == str(path)
