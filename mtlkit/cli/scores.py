"""The scores that `train` and `evaluate` print, beside those of the best constant prediction."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from mtlkit.cli import console
from mtlkit.errors import printable

if TYPE_CHECKING:
    from mtlkit.model import Model
    from mtlkit.train.evaluation import Scores

# Of a thousand tasks, as many as a warning names.
_LISTED = 10
# What is smaller or larger is written with a power of ten.
_SMALL, _LARGE = 1e-3, 1e6


def print_scores(scores: Scores, constant: Scores | None, what: str) -> None:
    """Print a table with two rows a task; with one where the constant's scores are not known."""
    names = list(dict.fromkeys(name for task in scores.values() for name in task))
    title = escape(printable(what))
    table = Table("task", *names, title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for task, values in scores.items():
        table.add_row(escape(task), *_cells(values, names))
        if constant is not None:
            table.add_row("  constant", *_cells(constant[task], names), style="dim")
    console.out.print(table)
    if constant is None:
        return
    told = "constant: the same prediction for every example, the best for the training labels"
    console.out.print(told, style="dim", highlight=False)


def warn_of_not_better(model: Model, scores: Scores, constant: Scores) -> None:
    """Warn of tasks in which the model is not better than a constant prediction."""
    from mtlkit.train.constant import not_better

    found = not_better(model, scores, constant)
    if not found or not console.first:
        return
    words = [f"{printable(task)} ({', '.join(names)})" for task, names in found.items()]
    more = [f"{len(words) - _LISTED:,} more tasks"] * (len(words) > _LISTED)
    warnings.warn(
        f"not better than a constant prediction: {', '.join([*words[:_LISTED], *more])}. Where training data "
        "(mtlkit evaluate --split train) say the same, train longer or with another learning rate, and look whether "
        "the inputs tell anything of it; else it was learned by heart: stop earlier (patience), or find more data",
        stacklevel=2,
    )


def _cells(values: dict[str, float], names: list[str]) -> list[str]:
    return [_figure(values[name]) if name in values else "" for name in names]


def _figure(value: float) -> str:
    """ "0.9312", "1.234e+09": of labels in nanometres four decimals say nothing."""
    beyond = 0 < abs(value) < _SMALL or _LARGE <= abs(value) < math.inf
    return f"{value:.3e}" if beyond else f"{value:.4f}"
