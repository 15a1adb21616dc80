"""What the site does that GitHub does not need: links out of docs/ lead to the repository.

mkdocs calls `on_page_markdown` with each page; mkdocs.yml names this file.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

# A link of Markdown to a relative path that goes up: [text](../SECURITY.md#promises).
_UP = re.compile(r"(?<=\]\()\.\./[^)\s]+(?=\))")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with links out of docs/ absolute."""
    here, root = posixpath.dirname(page.file.src_uri), posixpath.join(config["repo_url"], "blob", "main", "")

    def absolute(link: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join("docs", here, link[0]))
        return link[0] if there.startswith("docs/") else root + there

    return _UP.sub(absolute, markdown)
