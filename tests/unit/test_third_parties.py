"""Third-party packages that a room may import. The contracts of import-linter can only name those that it may not."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import samserve

ROOMS = Path(samserve.__path__[0])


def third_parties(room: str) -> set[str]:
    nodes = [node for file in (ROOMS / room).rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"samserve"}


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("domain", {"cv2", "numpy"}),
        ("usecases", {"cv2", "numpy"}),
        # pip install samserve brings these and tqdm, for the command.
        ("client", {"PIL", "google", "grpc", "grpc_health", "numpy"}),
    ],
)
def test_a_room_imports_only_the_third_parties_that_it_may(room: str, allowed: set[str]) -> None:
    assert "numpy" in third_parties(room) <= allowed


WITHOUT_THE_SERVER = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {server}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from samserve.cli import main
sys.exit(main(["segment", "--help"]))
"""


def test_the_command_needs_no_package_of_the_extra_server() -> None:
    server = {
        "cv2",
        "onnxruntime",
        "opentelemetry",
        "prometheus_client",
        "pycocotools",
        "pydantic",
        "redis",
        "tritonclient",
    }
    program = WITHOUT_THE_SERVER.format(server=server)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "--point" in run.stdout
