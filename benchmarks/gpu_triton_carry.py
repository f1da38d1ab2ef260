"""Collect what `benchmarks.gpu_triton` needs on a machine that has PyTorch, a GPU and no network.

    python -m benchmarks.gpu_triton_carry [--folder .carry]

Run it on Linux on x86-64 with network, binutils and a Python 3.12 that was built as a shared library. It downloads the
wheels for Python 3.12 that such a machine lacks, cuts NVIDIA's wheel of Triton down to the server and its Python
backend, and adds a Python for the case that the machine has no `libpython3.12.so.1.0`. The folder holds 36 MiB at most.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_triton.carried import PYTHON, TRITON, WHEELS, CarryInvalid, Item, write_manifest
from benchmarks.gpu_triton.trim import BACKEND, SERVER, STUB, pack, trim_python, trim_triton
from stack.triton_server import WHEEL, WHEEL_SHA256

PYTHON_VERSION = "3.12"

# Packages that the gateway and its client import and that a usual PyTorch installation lacks, and packages whose
# version there is unknown but matters to the generated code.
PACKAGES = (
    "annotated-types==0.8.0",
    "googleapis-common-protos==1.76.0",
    "grpcio==1.85.3",
    "grpcio-health-checking==1.81.1",
    "grpcio-reflection==1.81.1",
    "protobuf==6.33.6",
    "pycocotools==2.0.11",
    "pydantic==2.14.4",
    "pydantic-core==2.50.5",
    "pydantic-settings==2.16.3",
    "python-dotenv==1.2.4",
    "python-json-logger==4.2.0",
    "python-rapidjson==1.25",
    "redis==8.1.0",
    "tritonclient==2.73.0",
    "typing-extensions==4.16.0",
    "typing-inspection==0.4.5",
)
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014")


def download_wheels(folder: Path) -> dict[str, tuple[str, str]]:
    """Download `PACKAGES` into `folder/wheels`. Returns name and version by path."""
    platforms = [f"--platform={platform}_x86_64" for platform in _PLATFORMS]
    wheels_only = ["--only-binary=:all:", f"--python-version={PYTHON_VERSION}", "--implementation=cp", *platforms]
    _pip_download([*wheels_only, *PACKAGES], folder / WHEELS)
    versions = {}
    for wheel in (folder / WHEELS).glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        versions[f"{WHEELS}/{wheel.name}"] = (name, version)
    if len(versions) != len(PACKAGES):
        raise CarryInvalid(f"{len(versions)} wheels were downloaded for {len(PACKAGES)} packages")
    return versions


def collect_triton(folder: Path, draft: Path) -> dict[str, tuple[str, str]]:
    """Download NVIDIA's wheel and pack the required part of it."""
    requirement = draft / "requirements.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    _pip_download(["--requirement", str(requirement)], draft)
    (wheel,) = draft.glob("*.whl")
    home, trimmed = draft / "home", draft / "triton"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    shutil.copy(home / SERVER / "python_backend_stubs" / PYTHON_VERSION / STUB.name, home / BACKEND)
    trim_triton(home, trimmed)
    for program in (STUB, SERVER / "bin/tritonserver"):
        (trimmed / program).chmod(0o755)
    pack(trimmed, folder / TRITON)
    name, version = WHEEL.split("==")
    return {TRITON: (name, version)}


def collect_python(folder: Path, draft: Path, interpreter: str) -> dict[str, tuple[str, str]]:
    """Pack the shared library and the standard library of a Python 3.12."""
    question = "import sysconfig as s, platform as p; v = s.get_config_var; "
    question += "print(v('LIBDIR'), v('INSTSONAME'), s.get_path('stdlib'), p.python_version(), sep='\\n')"
    try:
        answer = subprocess.run([interpreter, "-c", question], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CarryInvalid(f"{interpreter} cannot be run: {error}; name another by --interpreter") from error
    library_folder, soname, standard_library, version = answer.split()
    library = Path(library_folder, soname)
    if soname != f"libpython{PYTHON_VERSION}.so.1.0" or not library.is_file():
        raise CarryInvalid(
            f"{interpreter} is no Python {PYTHON_VERSION} with a shared library; name another by --interpreter"
        )
    trim_python(library, Path(standard_library), draft / "python")
    pack(draft / "python", folder / PYTHON)
    return {PYTHON: ("python", version)}


def table(items: Sequence[Item]) -> str:
    """Format a line for each file and their total."""
    rows = [f"{item.nbytes / (1 << 20):7.2f} MiB  {item.name} {item.version}  {item.sha256[:12]}" for item in items]
    return "\n".join([*rows, f"{sum(item.nbytes for item in items) / (1 << 20):7.2f} MiB  in all"])


def _pip_download(arguments: Sequence[str], target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run([*pip, *arguments, "--dest", str(target)], check=True)
    except subprocess.CalledProcessError as error:
        raise CarryInvalid("pip cannot download the packages; see above") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Recreate the folder and print its content. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Collect the packages for benchmarks.gpu_triton.")
    parser.add_argument("--folder", type=Path, default=Path(".carry"))
    parser.add_argument("--interpreter", default=f"python{PYTHON_VERSION}", help="a Python 3.12 with a shared library")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory() as draft:
            versions = download_wheels(options.folder)
            versions |= collect_python(options.folder, Path(draft), options.interpreter)
            versions |= collect_triton(options.folder, Path(draft))
        print(table(write_manifest(options.folder, versions)))
    except CarryInvalid as error:
        print(f"gpu_triton_carry: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
