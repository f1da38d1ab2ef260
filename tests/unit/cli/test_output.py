"""Input and output paths are checked before the work."""

from pathlib import Path

import pytest

from samserve.cli import main

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


@pytest.mark.parametrize("cut", [0, 5, 5000])
def test_gaze_says_that_a_file_is_no_photo(cut: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTO.read_bytes()[:cut])
    assert main(["gaze", str(broken), "--server", NOWHERE]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"samserve: {broken}: the photo is ")
    assert "BytesIO" not in line
