"""Markdown of what other people named: plain text, tables and fenced blocks that keep their shape whatever is in them.

table(["task", "loss"], [["price | <b>", "mse"]])
fenced(json.dumps(spec), "json")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mtlkit.errors import printable

# What marks something within a line. "_" does at the border of a word, and "." makes a link of "www.".
_MARKUP = re.compile(r"[\\`*\[\]<>&|~#$@:{}]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\.", re.IGNORECASE)
_MOST_ROWS = 200


def line(text: str) -> str:
    """A text in one line, without control characters and the like."""
    return " ".join(printable(text).split())


def plain(text: str) -> str:
    """What shows `text` as it is, in one line, within a heading or the cell of a table.

    Entities, since no reader takes one for markup; a backslash does not keep a cell together everywhere.
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """A table of plain texts; with `numbers`, what follows its first column stands at the right.

    Of very many rows the first ones are shown, and the number of the others is told.
    """
    every = [*rows]
    rule = ["---", *["---:" if numbers else "---"] * (len(columns) - 1)]
    head, *body = [[plain(cell) for cell in row] for row in [columns, *every[:_MOST_ROWS]]]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
    if len(every) > _MOST_ROWS:
        lines += ["", f"And {len(every) - _MOST_ROWS:,} more."]
    return "\n".join(lines)


def fenced(text: str, kind: str = "") -> str:
    """A block of code, in a fence that is longer than any in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{text}\n{fence}"
