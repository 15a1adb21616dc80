"""The documents hang together: on GitHub, where they are read as they are, and as a site."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import mtlkit

ROOT = Path(mtlkit.__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES += [*DOCS, *sorted(ROOT.glob("plugins/*/README.md"))]


@cache
def text_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def headings(page: Path) -> list[str]:
    return [re.sub(r"[`*]|\]\(.*?\)|\[", "", line) for line in re.findall(r"^#+ +(.*)$", text_of(page), re.MULTILINE)]


def on_github(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def on_the_site(heading: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def links(page: Path) -> Iterator[str]:
    """The relative links of a page."""
    prose = re.sub(r"`[^`\n]*`", "", text_of(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target}: nothing is there"
        if anchor:
            named = [on_the_site(heading) for heading in headings(there) if on_github(heading) == anchor]
            assert named == [anchor], f"{target}: expected one heading of this name, the same on the site"


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages_of(config["nav"])) == [str(page.relative_to(ROOT / "docs")) for page in DOCS]


def pages_of(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_of(inner)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert 'href="https://github.com/mtlkit/mtlkit/blob/main/SECURITY.md"' in (
        tmp_path / "reliability" / "index.html"
    ).read_text(encoding="utf-8")
