"""The report as Markdown, for an issue or a wiki.

    markdown_of(found, answer)

Names are escaped so that Markdown shows them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.answer import Answer
from mtlkit.bench.report.comparisons import NOTE, Compared, comparisons_of
from mtlkit.bench.report.facts import facts_of, sources_of, title_of
from mtlkit.bench.report.table import Figure, Line, columns_of, legend_of, table_of
from mtlkit.bench.wording import title_of_run
from mtlkit.errors import printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|&~$@!])|(?<=www)(\.)|(?<=:)(//)")
# What begins a list, a line or a title, where a block begins with it.
_BLOCK = re.compile(r"^(\d*)([-+=.)])(?=[-=\s]|$)")
_ISOLATES = "\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}"  # around names, see `isolated`


def markdown_of(found: Findings, answer: Answer) -> str:
    """The report as Markdown: the answer, what was compared, the tables, failures, and how to run it again."""
    result, columns = found.result, columns_of(found)
    heads = ["variant", *(f"{_md(column.name)} {_md(column.of)}".rstrip() for column in columns)]
    points = [f"- **{about}**: {_md(' '.join(sentences))}" for about, sentences in answer.points.items()]
    lines = [f"# {_md(title_of(result))}", "", f"**{_md(answer.headline)}**", "", *points]
    lines += ["", "## What was compared", "", *(f"- {what}: {_md(text)}" for what, text in facts_of(result))]
    table = _rows(heads, [(_name(row), [*map(_cell, row.cells)]) for row in table_of(found)])
    lines += ["", "## Scores and costs", "", *table]
    lines += ["", _md(legend_of(found)), "", "## Task by task", "", *_listed(answer.tasks)]
    lines += _comparisons(found)
    if result.failed:
        failures = [f"{title_of_run(run)}: {run.failed}" for run in result.failed]
        lines += ["", "## Failed runs", "", *_listed(failures)]
    lines += ["", "## Run it again", "", *_code(result.command), ""]
    return "\n".join([*lines, *(f"- {what}: {_md(text)}" for what, text in sources_of(result))]) + "\n"


def _comparisons(found: Findings) -> list[str]:
    lines = []
    for group in comparisons_of(found):
        heads = ["than" if group.first else "variant", "difference", "95 % interval", "p", "test", "seeds"]
        rows = [(_md(row.name), [*map(_md, _compared(row))]) for row in group.rows]
        lines += ["", f"### {_md(group.title)}", "", *_rows(heads, rows)]
    return ["", "## Comparisons", "", NOTE, *lines] if lines else []


def _compared(row: Compared) -> tuple[str, ...]:
    return (row.gain, row.interval, f"{row.p} (shown)" if row.is_shown else row.p, row.test, str(row.seeds))


def _listed(texts: Iterable[str]) -> list[str]:
    return [f"- {_md(text)}" for text in texts]


def _rows(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """A table of variants; heads, names and cells are Markdown."""
    top = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    return top + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line, wherever that begins."""
    clean = "".join(c if c in _ISOLATES else printable(c) for c in text)
    one_line = " ".join(clean.split())
    escaped = _SPECIAL.sub(lambda m: f"\\{m[1]}" if m[1] else "\\." if m[2] else "\\/\\/", one_line)
    return _BLOCK.sub(r"\1\\\2", escaped)


def _name(row: Line) -> str:
    return f"*{_md(row.name)}*" if row.is_baseline else _md(row.name)


def _cell(cell: Figure) -> str:
    text = _md(f"{cell.mean} ± {cell.half}" if cell.half else cell.mean)
    return f"**{text}**" if cell.is_best else f"{cell.mark} {text}".lstrip()


def _code(text: str) -> list[str]:
    """A block of code whose fence is longer than any within."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [fence, printable(text), fence]
