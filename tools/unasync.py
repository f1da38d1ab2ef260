"""Write the synchronous client from the asynchronous one, or check that it is up to date.

python -m tools.unasync [--check]
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from unasync import Rule, unasync_files

from tools.generated import GeneratedFolder

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


def _finished(text: str) -> str:
    text = _HEADER + _KEYWORDS.sub("", _NAMES.sub("", text))
    for command in (("check", "--quiet", "--select", "I", "--fix"), ("format",)):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", CLIENT / "_sync" / "module.py", "-"]
        text = subprocess.run(ruff, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
    return text


SYNC = GeneratedFolder(CLIENT / "_sync", ".py", modules, "unasync")

if __name__ == "__main__":
    sys.exit(SYNC.main("python -m tools.unasync", __doc__.splitlines()[0]))
