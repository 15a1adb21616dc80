"""The main table for a paper.

latex_of(found)     # \\begin{tabular} with booktabs
"""

from __future__ import annotations

import re

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.table import Column, Figure, Line, columns_of, legend_of, table_of
from mtlkit.errors import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
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
# What pdfLaTeX has without a package, and what is mapped above.
_LATIN = re.compile("[\x20-\x7eÀ-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿ±−–≈↑↓Δ…]*")
# Columns that one page holds; of more there are several tables.
_MOST_COLUMNS = 12


def latex_of(found: Findings) -> str:
    """The table with booktabs, as several where there are many columns.

    Where names hold letters beyond those of Western Europe, compile it with LuaLaTeX or XeLaTeX.
    """
    columns, rows = columns_of(found), table_of(found)
    lines = [r"% \usepackage{booktabs}", f"% {printable(legend_of(found))}"]
    texts = (*(row.name for row in rows), *(text for column in columns for text in (column.name, column.of)))
    if not all(_LATIN.fullmatch(text) for text in texts):
        lines.append("% Names hold letters beyond Latin: compile with LuaLaTeX or XeLaTeX and a font that has them.")
    tables = -(-len(columns) // _MOST_COLUMNS)
    width = -(-len(columns) // tables)
    for start in range(0, len(columns), width):
        some = slice(start, start + width)
        lines += [rf"\begin{{tabular}}{{l{'r' * len(columns[some])}}}", r"\toprule"]
        lines.append(" & ".join(["variant", *map(_tex_head, columns[some])]) + r" \\")
        lines.append(" & ".join(["", *(_tex(column.of) for column in columns[some])]) + r" \\")
        lines.append(r"\midrule")
        lines += [" & ".join([_tex_name(row), *map(_tex_cell, row.cells[some])]) + r" \\" for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(printable(text).split()))


def _tex_name(row: Line) -> str:
    return rf"\textit{{{_tex(row.name)}}}" if row.is_baseline else _tex(row.name)


def _tex_head(column: Column) -> str:
    return r"$\Delta_m$" if column.name == "Δm" and column.of.startswith("%") else _tex(column.name)


def _tex_cell(cell: Figure) -> str:
    mean = rf"\textbf{{{_tex(cell.mean)}}}" if cell.is_best else _tex(cell.mean)
    half = rf" $\pm$ {_tex(cell.half)}" if cell.half else ""
    return (f"{_tex(cell.mark)} " if cell.mark else "") + mean + half
