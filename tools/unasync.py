"""Write the synchronous client from the asynchronous one, or check that it is up to date.

python -m tools.unasync [--check]
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from unasync import Rule, unasync_files

CLIENT = Path(__file__).parents[1] / "service" / "samserve" / "client"

_HEADER = "# Generated from samserve/client/_async by `make unasync`; do not edit.\n"
_MODULES = {"_async": "_sync"}
# unasync knows AsyncX by the name of SyncX, and leaves docstrings as they are.
_NAMES = re.compile(r"\b(?:Async|Sync)(?=[A-Z])|\basync_(?=[a-z])")
_KEYWORDS = re.compile(r"\b(?:await|async(?= with| for)) ")


def modules() -> dict[str, str]:
    """The text of every module of the synchronous client by its file name."""
    with TemporaryDirectory() as folder:
        rule = Rule(f"{CLIENT / '_async'}/", f"{folder}/", _MODULES)
        unasync_files([str(path) for path in (CLIENT / "_async").glob("*.py")], [rule])
        return {path.name: _finished(path.read_text()) for path in sorted(Path(folder).glob("*.py"))}


def stale(folder: Path = CLIENT / "_sync") -> list[str]:
    """File names of modules that are missing, differ from their source, or have none."""
    wanted = modules()
    written = {path.name: path.read_text() for path in folder.glob("*.py")}
    return sorted(name for name in wanted.keys() | written.keys() if wanted.get(name) != written.get(name))


def write(folder: Path = CLIENT / "_sync") -> None:
    """Write every module, and remove those that have no source any more."""
    wanted = modules()
    for path in folder.glob("*.py"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


def _finished(text: str) -> str:
    text = _HEADER + _KEYWORDS.sub("", _NAMES.sub("", text))
    for command in (("check", "--quiet", "--select", "I", "--fix"), ("format",)):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", CLIENT / "_sync" / "module.py", "-"]
        text = subprocess.run(ruff, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.unasync", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a module is not up to date")
    if not parser.parse_args().check:
        write()
        return 0
    names = stale()
    for name in names:
        print(f"samserve/client/_sync/{name} is not up to date: run `make unasync` and commit it", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
