"""Write the API reference, or check that it is up to date.

python -m tools.reference [--check]
"""

import sys
from pathlib import Path

from tools.generated import GeneratedFolder
from tools.reference import proto, python, settings


def pages() -> dict[str, str]:
    """Render every page, keyed by file name."""
    return {**proto.pages(), **python.pages(), **settings.pages()}


REFERENCE = GeneratedFolder(Path(__file__).parents[2] / "docs" / "reference", ".md", pages, "reference")

if __name__ == "__main__":
    sys.exit(REFERENCE.main("python -m tools.reference", __doc__.splitlines()[0]))
