"""What the site does that GitHub does not need: links out of docs/ lead to the repository.

mkdocs calls `on_page_markdown` with each page; mkdocs.yml names this file.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

# A link of Markdown to a relative path that begins above docs/: [text](../SECURITY.md#promises).
_OUT_OF_DOCS = re.compile(r"(?<=\]\()\.\./([^)\s]+)(?=\))")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with such links absolute."""
    root = posixpath.join(config["repo_url"], "blob", "main", "")
    return _OUT_OF_DOCS.sub(lambda link: root + link[1], markdown)
