"""The report's other files: Markdown for an issue or a wiki, a tidy CSV for a notebook, a LaTeX table for a paper.

    markdown(found, answer, title, facts, sources)
    csv(result)      # variant,trunk,sharing,balancer,task,seed,metric,value
    latex(found)     # \\begin{tabular} with booktabs

Names are escaped as each needs it: in CSV a text that a spreadsheet would run as a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv as comma_separated
import io
import math
import re
from collections.abc import Sequence

from mtlkit.bench.answer import Answer
from mtlkit.bench.figures import Column, Figure, columns_of, legend_of, table_of
from mtlkit.bench.findings import Findings
from mtlkit.bench.result import Result
from mtlkit.errors import printable

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|&~$@!])|(?<=www)(\.)|(?<=:)(//)")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    # After the end of a row they would be its options; two dashes would be one long one.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "-": "{-}",
    "`": "{`}",
    "'": "{'}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "≈": r"$\approx$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "…": r"\ldots{}",
    **{mark: f"\\{mark}" for mark in "{}$&#%_"},
}
_ISOLATES = "\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}"  # around names, see `isolated`
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NOT_LATIN = re.compile("[^\x00-\u024f\u2010-\u2027\u2190-\u2193±−≈Δ]")


def markdown(
    found: Findings,
    answer: Answer,
    title: str,
    facts: Sequence[tuple[str, str]],
    sources: Sequence[tuple[str, str]],
) -> str:
    """The report as Markdown: the answer, what was compared, the table, failures, and how to run it again."""
    columns = columns_of(found)
    heads = ["variant", *(f"{_md(column.name)} {_md(column.of)}".rstrip() for column in columns)]
    lines = [f"# {_md(title)}", "", f"**{_md(answer.headline)}**", ""]
    lines += [f"- {_md(point)}" for point in answer.points]
    lines += ["", "## What was compared", "", *(f"- {what}: {_md(text)}" for what, text in facts)]
    lines += ["", "## Scores and costs", "", f"| {' | '.join(heads)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {_md(row.name)} | {' | '.join(map(_md_cell, row.cells))} |" for row in table_of(found)]
    lines += ["", _md(legend_of(found)), "", "## Task by task", "", *(f"- {_md(text)}" for text in answer.tasks)]
    if found.result.failed:
        lines += ["", "## Failed runs", ""]
        for run in found.result.failed:
            task = "" if run.task is None else f", {run.task} alone"
            lines.append(f"- {_md(f'{run.variant}{task}, seed {run.seed}: {run.failed}')}")
    lines += ["", "## Run it again", "", *_code(found.result.command), ""]
    return "\n".join([*lines, *(f"- {what}: {_md(text)}" for what, text in sources)]) + "\n"


def csv(result: Result) -> str:
    """Every figure on test data as a row: variant, trunk, sharing, balancer, task, seed, metric, value.

    Of a baseline sharing and balancer are empty. A figure that is undefined is empty.
    """
    out = io.StringIO()
    writer = comma_separated.writer(out, lineterminator="\n")
    writer.writerow(["variant", "trunk", "sharing", "balancer", "task", "seed", "metric", "value"])
    for run in result.runs:
        variant = result.variants[run.variant]
        for task, scores in (run.test or {}).items():
            for metric, value in scores.items():
                names = (variant.name, variant.trunk, variant.sharing, variant.balancer, task)
                known = value is not None and math.isfinite(value)
                writer.writerow([*map(_text, names), run.seed, _text(metric), repr(float(value)) if known else ""])
    return out.getvalue()


def latex(found: Findings) -> str:
    """The table with booktabs. Where names hold letters beyond Latin, compile it with LuaLaTeX or XeLaTeX."""
    columns, rows = columns_of(found), table_of(found)
    lines = [r"% \usepackage{booktabs}"]
    if any(_NOT_LATIN.search(name) for name in (*(row.name for row in rows), *(column.name for column in columns))):
        lines.append("% Names hold letters beyond Latin: compile with LuaLaTeX or XeLaTeX and a font that has them.")
    lines += [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule"]
    lines.append(" & ".join(["variant", *map(_tex_head, columns)]) + r" \\")
    lines.append(" & ".join(["", *(_tex(column.of) for column in columns)]) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join([_tex(row.name), *map(_tex_cell, row.cells)]) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    clean = "".join(c if c in _ISOLATES else printable(c) for c in text)
    one_line = " ".join(clean.split())
    return _MARKDOWN.sub(lambda m: f"\\{m[1]}" if m[1] else "\\." if m[2] else "\\/\\/", one_line)


def _md_cell(cell: Figure) -> str:
    text = _md(f"{cell.mean} ± {cell.half}" if cell.half else cell.mean)
    return f"**{text}**" if cell.is_best else f"≈ {text}" if cell.is_like else text


def _code(text: str) -> list[str]:
    """A block of code whose fence is longer than any within."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [fence, printable(text), fence]


def _text(value: str | None) -> str:
    if value is None:
        return ""
    return f"'{value}" if value.startswith(_FORMULA) else value


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(printable(text).split()))


def _tex_head(column: Column) -> str:
    return r"$\Delta_m$" if column.name == "Δm" and column.of.startswith("%") else _tex(column.name)


def _tex_cell(cell: Figure) -> str:
    mean = rf"\textbf{{{_tex(cell.mean)}}}" if cell.is_best else _tex(cell.mean)
    half = rf" $\pm$ {_tex(cell.half)}" if cell.half else ""
    return (r"$\approx$ " if cell.is_like else "") + mean + half
