"""The table of scores that `train` and `evaluate` print."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from mtlkit.cli import console


def print_scores(scores: dict[str, dict[str, float]], what: str) -> None:
    names = list(dict.fromkeys(name for task in scores.values() for name in task))
    table = Table("task", *names, title=what, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for task, values in scores.items():
        table.add_row(escape(task), *(f"{values[name]:.4f}" if name in values else "" for name in names))
    console.out.print(table)
