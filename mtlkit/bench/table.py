"""A result as text: a line for each run that ends, and the table at the end.

                    left          ink                  ms
    trunk     accuracy ↑        mae ↓  parameters  a step
    small  0.912 ± 0.020  0.41 ± 0.03       1,961    0.52
    large  0.934 ± 0.011  0.33 ± 0.04     210,965    2.31

Arrows say which direction is better.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtlkit.bench.plan import Measure
from mtlkit.bench.result import Result, Spread, Summary
from mtlkit.bench.run import Run
from mtlkit.bench.wording import counted, decimals_for, short

# Letters at most: of a trunk's name, of a task's title and of its column with its margin, of the costs and runs.
_NAME, _TITLE, _TASK_COLUMN, _OTHER_COLUMNS = 24, 15, 17, 26
# Figures of one run on a line.
_MAX_FIGURES = 6
_ABSENT = "–"


def print_table(result: Result, console: Console) -> None:
    """Print a row for each trunk, and why runs failed. What is too wide for the console stays in results.json."""
    names = max(len(short(trunk, _NAME)) for trunk in result.trunks)
    tasks = list(result.measures)[: max((console.width - names - _OTHER_COLUMNS) // _TASK_COLUMN, 1)]
    console.print()
    console.print(_table(result, tasks))
    for run in result.failed:
        console.print(Text(f"{run.trunk}, seed {run.seed} failed: {run.failed}"), soft_wrap=True)
    seeds = result.file["bench"]["seeds"]
    over = "1 seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    more = len(result.measures) - len(tasks)
    rest = f" results.json has {counted(more, 'more task')}." if more > 0 else ""
    console.print(f"Test data, {over}; the epoch of each run was chosen on validation data.{rest}", highlight=False)


def line(result: Result, run: Run) -> Text:
    """One finished run: "cnn, seed 0: left accuracy 0.989, right accuracy 0.984"."""
    if run.test is None:
        return Text(f"{run.trunk}, seed {run.seed}: failed: {run.failed}")
    figures = [
        f"{task} {measure.metric} {run.test[task][measure.metric]:.4g}"
        for task, measure in list(result.measures.items())[:_MAX_FIGURES]
    ]
    return Text(f"{run.trunk}, seed {run.seed}: " + ", ".join(figures))


def _table(result: Result, tasks: list[str]) -> Table:
    summaries = result.summary()
    spreads = {task: [summary.test[task] for summary in summaries.values() if summary.test] for task in tasks}
    decimals = {task: decimals_for(found) for task, found in spreads.items()}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("trunk", no_wrap=True)
    for task in tasks:
        measure = result.measures[task]
        title = f"{short(task, _TITLE)}\n{short(measure.metric, _TITLE - 2)}{_arrow(measure)}"
        table.add_column(Text(title), justify="right", no_wrap=True)
    for title in ("parameters", "ms\na step", *(["runs"] if result.failed else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for trunk, summary in summaries.items():
        table.add_row(*_row(trunk, summary, decimals, bool(result.failed)))
    return table


def _row(trunk: str, summary: Summary, decimals: dict[str, int], with_runs: bool) -> list[Text]:
    cells = [short(trunk, _NAME)]
    cells += [_figure(summary.test[task], d) if summary.test else "failed" for task, d in decimals.items()]
    cells.append(_ABSENT if summary.parameters is None else f"{summary.parameters:,}")
    cells.append(_ABSENT if summary.seconds_per_step is None else f"{1000 * summary.seconds_per_step:.2f}")
    if with_runs:
        cells.append(f"{summary.finished} of {summary.finished + summary.failed}")
    return [Text(cell) for cell in cells]


def _figure(spread: Spread, decimals: int) -> str:
    mean = f"{spread.mean:.{decimals}f}"
    return mean if spread.deviation is None else f"{mean} ± {spread.deviation:.{decimals}f}"


def _arrow(measure: Measure) -> str:
    return {True: " ↑", False: " ↓", None: ""}[measure.higher_is_better]
