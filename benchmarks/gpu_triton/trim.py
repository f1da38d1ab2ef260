"""Reduce Triton and Python to the files that the benchmark needs, as compressed archives."""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu_triton.carried import CarryInvalid

SERVER = Path("pytriton/tritonserver")
LIBRARIES = Path("nvidia_pytriton.libs")
BACKEND = SERVER / "backends/python"
STUB = BACKEND / "triton_python_backend_stub"
PROGRAMS = (SERVER / "bin/tritonserver", BACKEND / "libtriton_python.so", STUB)

ICU_DATA = "libicudata-"
"""Unicode data of 29 MB that libxml2 needs to parse the XML of cloud storage, which is not used here."""

# Parts of the standard library that no program here imports.
_NO_MODULES = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter"}
_NO_MODULES |= {"turtledemo", "turtle.py"}
_NO_EXTENSIONS = re.compile(r"_test|xx|_tkinter|_curses|_crypt|_sqlite3|nis|ossaudiodev|readline|spwd|audioop")


def needed_libraries(program: Path) -> list[str]:
    """Names of the shared libraries that an ELF file requests from the dynamic loader."""
    try:
        listing = subprocess.run(["readelf", "--dynamic", program], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise CarryInvalid("readelf is missing; install binutils") from None
    return re.findall(r"\(NEEDED\).*\[(.+)\]", listing)


def closure(programs: Iterable[Path], libraries: Path) -> set[Path]:
    """The files in the folder `libraries` that the programs need, directly or indirectly."""
    found: set[Path] = set()
    pending = list(programs)
    while pending:
        for name in needed_libraries(pending.pop()):
            library = libraries / name
            if library.is_file() and library not in found:
                found.add(library)
                pending.append(library)
    return found


def trim_triton(home: Path, target: Path) -> None:
    """Copy the server, the Python backend and their libraries from a Triton installation."""
    for program in PROGRAMS:
        if not (home / program).is_file():
            raise CarryInvalid(f"{home / program} is missing")
    libraries = closure([home / program for program in PROGRAMS], home / LIBRARIES)
    for file in [*(home / program for program in PROGRAMS), *sorted(libraries)]:
        copied = _copy(file, target / file.relative_to(home))
        if copied.name.startswith(ICU_DATA):
            _blank_read_only_data(copied)
        else:
            _strip(copied)
    _copy(home / BACKEND / "triton_python_backend_utils.py", target / BACKEND / "triton_python_backend_utils.py")


def trim_python(library: Path, standard_library: Path, target: Path) -> None:
    """Copy the interpreter's shared library and the standard library to where an embedded interpreter finds them.

    A library built from other sources than the machine's own Python cannot use that Python's standard library:
    distributions compile different extension modules into the interpreter.
    """
    _strip(_copy(library, target / "lib" / library.name))

    def unused(folder: str, names: list[str]) -> list[str]:
        if Path(folder).name == "lib-dynload":
            return [name for name in names if _NO_EXTENSIONS.match(name)]
        return [name for name in names if name in _NO_MODULES or name.startswith("config-")]

    copied = target / "lib" / standard_library.name
    shutil.copytree(standard_library, copied, ignore=unused)
    for extension in (copied / "lib-dynload").iterdir():
        _strip(extension)
    # An embedded interpreter searches for the standard library relative to the first `python3` on PATH.
    program = target / "bin" / "python3"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'only a library is here' >&2\nexit 1\n")
    program.chmod(0o755)


def pack(folder: Path, archive: Path) -> None:
    """Compress the content of a folder, without owners and dates."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder), recursive=False, filter=plain)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def _strip(file: Path) -> None:
    if shutil.which("strip"):
        file.chmod(file.stat().st_mode | 0o200)
        subprocess.run(["strip", "--strip-unneeded", file], check=True)


def _blank_read_only_data(file: Path) -> None:
    """Overwrite the section `.rodata` with zeros, so that it compresses well."""
    listing = subprocess.run(["readelf", "--section-headers", "--wide", file], check=True, capture_output=True)
    section = re.search(r" \.rodata +PROGBITS +[0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+) ", listing.stdout.decode())
    if section is None:
        raise CarryInvalid(f"{file} has no section .rodata")
    offset, size = (int(number, 16) for number in section.groups())
    with file.open("r+b") as content:
        content.seek(offset)
        content.write(bytes(size))
