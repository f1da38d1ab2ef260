"""Contents of the wheel and of the source distribution."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LICENSE_FILES = ("LICENSE", "NOTICE")
BUILD = """
import sys
from hatchling import build
build.build_wheel(sys.argv[1])
build.build_sdist(sys.argv[1])
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and a source distribution, built by the backend that pyproject.toml requires."""
    with (ROOT / "pyproject.toml").open("rb") as project:
        requirements = tomllib.load(project)["build-system"]["requires"]
    backend, built = tmp_path_factory.mktemp("backend"), tmp_path_factory.mktemp("distributions")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--target", str(backend), *requirements], check=True)
    subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=ROOT, env={"PYTHONPATH": str(backend)}, check=True)
    return built


@pytest.fixture
def wheel(distributions: Path) -> dict[str, bytes]:
    """Contents of the wheel's files by path."""
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def metadata(wheel: dict[str, bytes]) -> Message:
    return HeaderParser().parsestr(next(text for name, text in wheel.items() if name.endswith("/METADATA")).decode())


def test_the_wheel_holds_the_licence_and_the_notice(wheel: dict[str, bytes], metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == list(LICENSE_FILES)
    for name in LICENSE_FILES:
        inside = [path for path in wheel if path.endswith(f".dist-info/licenses/{name}")]
        assert [wheel[path] for path in inside] == [(ROOT / name).read_bytes()]


def test_the_wheel_holds_the_bundled_model_that_the_notice_is_about(wheel: dict[str, bytes]) -> None:
    assert "samserve/model_repository/manifest.json" in wheel
    assert "samserve/model_repository/sam_image_encoder/1/model.onnx" in wheel
    notice = (ROOT / "NOTICE").read_text()
    for origin in ("MobileSAM", "Segment Anything", "Chaoning Zhang", "Meta Platforms, Inc. and affiliates"):
        assert origin in notice


def test_the_metadata_names_the_authors_and_every_supported_python(metadata: Message) -> None:
    assert metadata["Author"] == "samserve contributors"
    classifiers = metadata.get_all("Classifier") or []
    prefix = "Programming Language :: Python :: "
    pythons = [each.removeprefix(prefix) for each in classifiers if each.startswith(f"{prefix}3.")]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert metadata["Requires-Python"] == f">={pythons[0]}"


def test_the_source_distribution_holds_the_licence_and_the_notice(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        for name in LICENSE_FILES:
            member = next(each for each in archive if each.name.split("/", 1)[1:] == [name])
            content = archive.extractfile(member)
            assert content is not None
            assert content.read() == (ROOT / name).read_bytes()
