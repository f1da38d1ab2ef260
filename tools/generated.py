"""Generated files that are committed: writing them, and finding those that are not up to date."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GeneratedFolder:
    """A folder of which every file of one kind is generated.

    Attributes:
        path: the folder.
        suffix: of the generated files.
        files: makes the text of each, by its file name.
        target: of make, which writes them.
    """

    path: Path
    suffix: str
    files: Callable[[], Mapping[str, str]]
    target: str

    def stale(self, folder: Path | None = None) -> list[str]:
        """File names that are missing, outdated or obsolete in the folder, or in another one."""
        wanted = self.files()
        written = {path.name: path.read_text() for path in (folder or self.path).glob(f"*{self.suffix}")}
        return sorted(name for name in wanted.keys() | written.keys() if wanted.get(name) != written.get(name))

    def write(self, folder: Path | None = None) -> None:
        """Write every file, and remove obsolete ones."""
        folder = folder or self.path
        folder.mkdir(parents=True, exist_ok=True)
        wanted = self.files()
        for path in folder.glob(f"*{self.suffix}"):
            if path.name not in wanted:
                path.unlink()
        for name, text in wanted.items():
            (folder / name).write_text(text)

    def main(self, program: str, description: str) -> int:
        """Run the command `program [--check]`, and return its exit code."""
        parser = argparse.ArgumentParser(prog=program, description=description)
        parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not up to date")
        if not parser.parse_args().check:
            self.write()
            return 0
        names = self.stale()
        for name in names:
            print(f"{self.path / name} is not up to date: run `make {self.target}` and commit it", file=sys.stderr)
        return 1 if names else 0
