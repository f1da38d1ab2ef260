"""Markdown tables, numbers, and replacing the parts of a page between marker comments."""

import re
from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def number(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the decimal point."""
    for least, digits in ((100.0, 0), (10.0, 1), (1.0, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def part(value: float) -> str:
    """Format a fraction of 1, truncated to five digits, so that a value below 1 is never shown as 1."""
    return f"{int(value * 100_000 + 1e-6) / 100_000:.5f}"


def with_parts(page: str, parts: Mapping[str, str]) -> str:
    """Replace the text between `<!-- gpu: begin NAME -->` and `<!-- gpu: end NAME -->` by the part of that name.

    Raises:
        ValueError: the page names a part that does not exist.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in parts:
            raise ValueError(f"unknown part {name}; expected one of {', '.join(parts)}")
        return f"<!-- gpu: begin {name} -->\n{parts[name]}\n<!-- gpu: end {name} -->"

    pattern = r"<!-- gpu: begin (?P<name>[a-z0-9-]+) -->\n.*?<!-- gpu: end (?P=name) -->"
    return re.sub(pattern, replaced, page, flags=re.DOTALL)
