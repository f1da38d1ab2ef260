"""The folder of packages for a machine without network: its manifest, its size limits, and unpacking it.

Imports only the standard library, because this code runs before the packages are available.
"""

import hashlib
import json
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MANIFEST = "MANIFEST.json"
TRITON = "triton.tar.xz"
PYTHON = "python.tar.xz"
WHEELS = "wheels"

MAX_BYTES = 36 << 20
MAX_TRITON_BYTES = 32 << 20


class CarryInvalid(Exception):
    """The folder is missing, incomplete, modified or too large; the message says which."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the folder.

    Attributes:
        path: relative to the folder.
        name: of the package in the file.
        version: of the package.
        nbytes: size of the file.
        sha256: of the file, in hexadecimal digits.
    """

    path: str
    name: str
    version: str
    nbytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Locations of the unpacked packages.

    Attributes:
        site: Python packages, for `PYTHONPATH`.
        triton: home of a `stack.triton_server.TritonInstallation`.
        python: prefix of a Python with a shared library, used only where the machine has no such library.
    """

    site: Path
    triton: Path
    python: Path

    @classmethod
    def under(cls, folder: Path) -> "Unpacked":
        """The paths below `folder`, whether or not they exist."""
        return cls(folder / "site", folder / "triton", folder / "python")


def write_manifest(folder: Path, versions: Mapping[str, tuple[str, str]]) -> list[Item]:
    """Write the manifest of the folder's files.

    Args:
        versions: name and version of the package in each file, by the file's path relative to the folder.

    Raises:
        CarryInvalid: a file is missing, or the files are larger than the limits.
    """
    items = []
    for path, (name, version) in sorted(versions.items()):
        file = folder / path
        if not file.is_file():
            raise CarryInvalid(f"{file} is missing")
        items.append(Item(path, name, version, file.stat().st_size, _sha256(file)))
    check_sizes(items)
    (folder / MANIFEST).write_text(json.dumps({"files": [asdict(item) for item in items]}, indent=2) + "\n")
    return items


def check_sizes(items: Sequence[Item]) -> None:
    """Raise CarryInvalid if the files exceed `MAX_BYTES` together, or Triton `MAX_TRITON_BYTES`."""
    total = sum(item.nbytes for item in items)
    if total > MAX_BYTES:
        raise CarryInvalid(f"the files have {total} bytes; the limit is {MAX_BYTES}")
    for item in items:
        if item.path == TRITON and item.nbytes > MAX_TRITON_BYTES:
            raise CarryInvalid(f"{TRITON} has {item.nbytes} bytes; the limit is {MAX_TRITON_BYTES}")


def read_manifest(folder: Path) -> list[Item]:
    """Read the manifest and check each file's size and hash.

    Raises:
        CarryInvalid: the manifest or a file is missing, or a file is not the one that the manifest describes.
    """
    try:
        items = [Item(**item) for item in json.loads((folder / MANIFEST).read_text())["files"]]
    except FileNotFoundError:
        raise CarryInvalid(
            f"{folder / MANIFEST} is missing; make the folder with: python -m benchmarks.gpu_triton_carry"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise CarryInvalid(f"{folder / MANIFEST} cannot be read: {error!r}") from error
    for item in items:
        file = folder / item.path
        if not file.is_file():
            raise CarryInvalid(f"{file} is missing")
        if file.stat().st_size != item.nbytes or _sha256(file) != item.sha256:
            raise CarryInvalid(f"{file} is not the file that {MANIFEST} describes")
    return items


def unpack(folder: Path, target: Path) -> Unpacked:
    """Check the folder, and unpack its wheels and archives below `target`.

    Raises:
        CarryInvalid: the folder is not complete.
    """
    unpacked = Unpacked.under(target)
    homes = {TRITON: unpacked.triton, PYTHON: unpacked.python}
    for item in read_manifest(folder):
        if item.path in homes:
            with tarfile.open(folder / item.path) as archive:
                archive.extractall(homes[item.path], filter="data")
        else:
            # A wheel is a zip archive of site-packages; none of these needs other installation steps.
            with zipfile.ZipFile(folder / item.path) as wheel:
                wheel.extractall(unpacked.site)
    write_project_metadata(unpacked.site)
    return unpacked


def write_project_metadata(site: Path) -> None:
    """Make this project's version discoverable when it runs from source without being installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(metadata)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
