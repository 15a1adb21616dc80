"""A result as text: a line for each run that ends, and the table at the end.

line(result, run)                 # cnn/single left, seed 0: left accuracy 0.989
print_table(result, console)
"""

from __future__ import annotations

from statistics import fmean

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mtlkit.bench.result import Result, Run


def print_table(result: Result, console: Console) -> None:
    """Print a row for each variant, and why runs failed."""
    arrows = {True: " ↑", False: " ↓", None: ""}
    titles = [f"{task}\n{one.metric}{arrows[one.higher_is_better]}" for task, one in result.measures.items()]
    table = Table(*map(escape, ["variant", *titles, "parameters"]), box=None, pad_edge=False, header_style="bold")
    for variant in result.variants.values():
        scores = [[*result.scores(variant.name, task).values()] for task in result.measures]
        figures = [f"{fmean(found):.4f}" if found else "failed" for found in scores]
        table.add_row(Text(variant.name), *figures, f"{variant.parameters:,}")
    console.print(table)
    for run in result.failed:
        console.print(Text(f"{run.variant}, seed {run.seed} failed: {run.failed}"), soft_wrap=True)


def line(result: Result, run: Run) -> Text:
    """One finished run: "cnn, seed 0: left accuracy 0.989, right accuracy 0.984"."""
    head = f"{run.variant}{'' if run.task is None else f' {run.task}'}, seed {run.seed}: "
    if run.test is None:
        return Text(f"{head}failed: {run.failed}")
    metrics = {task: result.measures[task].metric for task in run.test}
    return Text(head + ", ".join(f"{task} {metric} {run.test[task][metric]:.4g}" for task, metric in metrics.items()))
