"""Markdown: tables, numbers, and parts of a page between two marker comments."""

import re
from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def number(value: float) -> str:
    """Three digits, or all before the decimal point, with separators."""
    for least, digits in ((100.0, 0), (10.0, 1), (1.0, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def part(value: float) -> str:
    """A share of 1, cut and not rounded to five digits, so that 0.99999 never reads as 1."""
    return f"{int(value * 100_000 + 1e-6) / 100_000:.5f}"


def with_parts(page: str, parts: Mapping[str, str]) -> str:
    """The page with the text between `<!-- gpu: begin NAME -->` and `<!-- gpu: end NAME -->` replaced.

    Raises:
        ValueError: the page has a part that nobody renders.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in parts:
            raise ValueError(f"no table is called {name}; there are {', '.join(parts)}")
        return f"<!-- gpu: begin {name} -->\n{parts[name]}\n<!-- gpu: end {name} -->"

    pattern = r"<!-- gpu: begin (?P<name>[a-z0-9-]+) -->\n.*?<!-- gpu: end (?P=name) -->"
    return re.sub(pattern, replaced, page, flags=re.DOTALL)
