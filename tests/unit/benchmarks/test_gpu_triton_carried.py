"""Validation of the folder of carried packages, and the error for each fault."""

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu_triton import carried, trim
from benchmarks.gpu_triton.carried import CarryInvalid, Item, Unpacked, read_manifest, unpack, write_manifest

WHEEL = "wheels/thing-1.0-py3-none-any.whl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A wheel, a Triton and a Python of one file each."""
    folder = tmp_path / "carry"
    (folder / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("thing/__init__.py", "ANSWER = 42\n")
    for archive, name in ((carried.TRITON, "pytriton/server"), (carried.PYTHON, "lib/libpython3.12.so.1.0")):
        draft = tmp_path / archive.split(".")[0]
        (draft / name).parent.mkdir(parents=True)
        (draft / name).write_text(name)
        trim.pack(draft, folder / archive)
    versions = {WHEEL: ("thing", "1.0"), carried.TRITON: ("triton", "2"), carried.PYTHON: ("python", "3.12.1")}
    write_manifest(folder, versions)
    return folder


def test_manifest_lists_each_file_with_version_size_and_hash(folder: Path) -> None:
    items = read_manifest(folder)
    assert [(item.path, item.name, item.version) for item in items] == [
        ("python.tar.xz", "python", "3.12.1"),
        ("triton.tar.xz", "triton", "2"),
        (WHEEL, "thing", "1.0"),
    ]
    assert all(item.nbytes == (folder / item.path).stat().st_size and len(item.sha256) == 64 for item in items)


def test_unpacks_wheels_and_archives(folder: Path, tmp_path: Path) -> None:
    unpacked = unpack(folder, tmp_path / "there")
    assert unpacked == Unpacked.under(tmp_path / "there")
    assert (unpacked.site / "thing" / "__init__.py").read_text() == "ANSWER = 42\n"
    assert (unpacked.triton / "pytriton/server").is_file()
    assert (unpacked.python / "lib/libpython3.12.so.1.0").is_file()
    assert list(unpacked.site.glob("samserve-*.dist-info/METADATA"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WHEEL).unlink(), "is missing"),
        (lambda folder: (folder / WHEEL).write_bytes(b"other"), "is not the file that MANIFEST.json describes"),
        (lambda folder: (folder / carried.MANIFEST).unlink(), "make the folder with"),
        (lambda folder: (folder / carried.MANIFEST).write_text('{"files": [{}]}'), "cannot be read"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(CarryInvalid, match=message):
        read_manifest(folder)


def test_a_file_that_was_not_collected_is_named(folder: Path) -> None:
    with pytest.raises(CarryInvalid, match=r"other\.whl is missing"):
        write_manifest(folder, {"wheels/other.whl": ("other", "1")})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": carried.MAX_BYTES, "b": 1}, f"{carried.MAX_BYTES + 1} bytes"),
        ({carried.TRITON: carried.MAX_TRITON_BYTES + 1}, carried.TRITON),
    ],
)
def test_sizes_above_the_limits_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(CarryInvalid, match=message):
        carried.check_sizes([Item(path, "x", "1", nbytes, "") for path, nbytes in sizes.items()])
    carried.check_sizes([Item(path, "x", "1", nbytes - 1, "") for path, nbytes in sizes.items() if nbytes > 1])


def test_archives_are_reproducible(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "file").write_text("content")
    trim.pack(tmp_path / "draft", tmp_path / "archive.tar.xz")
    with tarfile.open(tmp_path / "archive.tar.xz") as archive:
        (member,) = archive.getmembers()
    assert (member.name, member.uid, member.uname, member.mtime) == ("file", 0, "", 0)


def test_the_closure_follows_libraries_of_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"server": ["liba.so", "libc.so.6"], "liba.so": ["libb.so"], "libb.so": ["liba.so"]}
    monkeypatch.setattr(trim, "needed_libraries", lambda program: needs[program.name])
    for name in ("liba.so", "libb.so", "libunused.so"):
        (tmp_path / name).touch()
    assert trim.closure([Path("server")], tmp_path) == {tmp_path / "liba.so", tmp_path / "libb.so"}


def test_a_triton_without_its_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CarryInvalid, match="bin/tritonserver is missing"):
        trim.trim_triton(tmp_path, tmp_path / "out")


def test_the_manifest_is_json_with_a_list_of_files(folder: Path) -> None:
    (entry, *_) = json.loads((folder / carried.MANIFEST).read_text())["files"]
    assert set(entry) == {"path", "name", "version", "nbytes", "sha256"}
