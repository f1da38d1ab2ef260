"""Write the API reference, or check that it is up to date.

python -m tools.reference [--check]
"""

import argparse
import sys
from pathlib import Path

from tools.reference import proto, python, settings

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """Render every page, keyed by file name."""
    return {**proto.pages(), **python.pages(), **settings.pages()}


def stale(folder: Path = REFERENCE) -> list[str]:
    """List the file names of pages that are missing, outdated or obsolete."""
    wanted = pages()
    written = {path.name: path.read_text() for path in folder.glob("*.md")}
    return sorted(name for name in wanted.keys() | written.keys() if wanted.get(name) != written.get(name))


def write(folder: Path = REFERENCE) -> None:
    """Write every page, and remove obsolete ones."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is not up to date")
    if not parser.parse_args().check:
        write()
        return 0
    names = stale()
    for name in names:
        print(f"docs/reference/{name} is not up to date: run `make reference` and commit it", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
