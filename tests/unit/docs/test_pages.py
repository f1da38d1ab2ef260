"""The documentation: every page is in the index, and relative links lead somewhere."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "training").glob("*.md")])

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
EXTERNAL = ("http://", "https://", "mailto:")


def links(page: Path) -> list[str]:
    """Targets of a page's relative links, those of its pictures included."""
    found = LINK.findall(FENCED.sub("", page.read_text()))
    return [target for target in found if not target.startswith(EXTERNAL)]


def anchors(page: Path) -> set[str]:
    """Ids that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    seen: Counter[str] = Counter()
    found = set()
    for slug in slugs:
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(page: Path) -> Iterator[str]:
    """Relative links that lead to no file, or to no heading of a page."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    assert list(broken(page)) == []


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    assert set(DOCS.rglob("*.md")) - linked - {INDEX} == set()


def test_the_readme_links_to_the_index() -> None:
    assert "docs/README.md" in links(ROOT / "README.md")


def test_a_broken_link_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b, c\n[1](#a-b-c) [2](#a-b) [3](page.md#a-b-c) [4](none.md)\n```\n[5](none.md)\n```\n")
    assert list(broken(page)) == ["#a-b", "none.md"]
