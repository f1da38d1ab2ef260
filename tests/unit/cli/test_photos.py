"""The photos of a folder."""

from pathlib import Path

import pytest
from PIL import Image

from samserve.cli.errors import CommandFailed
from samserve.cli.photos import natural_order, photos_of
from samserve.cli.pictures.files import write_picture


@pytest.mark.parametrize(
    "names",
    [
        [f"{number}.jpg" for number in range(12)],
        ["01.png", "1.jpg", "2.jpg", "10.jpg"],
        ["frame9_a.png", "frame9_b.png", "frame10_a.png"],
        ["a.jpg", "a1.jpg", "B.jpg", "b2.jpg"],
        ["20240101_9.jpg", "20240101_10.jpg", "20240102_1.jpg"],
        ["9.jpg", "a.jpg", "é.jpg", "\udce9.jpg"],
        ["²10.jpg", "٣.jpg"],
    ],
    ids=lambda names: ascii(names[0]),
)
def test_numbers_in_names_are_ordered_as_numbers(names: list[str]) -> None:
    for shift in range(len(names)):
        assert sorted(names[shift:] + names[:shift], key=natural_order) == names


def test_hidden_files_outputs_and_folders_are_no_photos(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    write_picture(tmp_path / "overlay.png", Image.new("RGB", (3, 2)))
    assert photos_of(tmp_path) == [tmp_path / "a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(CommandFailed, match="no photos but 1 that samserve wrote"):
        photos_of(tmp_path)


def test_a_file_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    def refuse(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr("samserve.cli.photos.is_own", refuse)
    assert photos_of(tmp_path) == [tmp_path / "a.png"]
