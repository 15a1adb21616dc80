"""A result as text: a line for each run that ends, and the table at the end.

                               left          ink
    trunk  sharing    accuracy ↑        mae ↓         Δm %  parameters  ms a step
    cnn    single  0.912 ± 0.020  0.41 ± 0.03          0.0      88,112       1.31
    cnn    hard    0.934 ± 0.011  0.33 ± 0.04  +10.9 ± 3.1      44,549       0.62
    constant               0.112         0.81

Arrows say which direction is better. Trunk, sharing and balancer have a column where they vary.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtlkit.bench.findings import Findings, Row
from mtlkit.bench.learned import told_not_learned
from mtlkit.bench.result import Result, Run, Variant
from mtlkit.bench.wording import ABSENT, arrow, counted, estimated, figure, short, title_of_run
from mtlkit.errors import printable

# Letters at most: of a name, of a task's title and of its column with its margin, of the gain, of costs and runs.
_NAME, _TITLE, _TASK_COLUMN, _GAIN_COLUMN, _OTHER_COLUMNS = 24, 15, 17, 15, 28
# Figures of one run on a line.
_MAX_FIGURES = 6
_ALONE, _CONSTANT = "single", "constant"


def print_table(result: Result, console: Console) -> None:
    """Print a row for each variant, and why runs failed. What is too wide for the console stays in results.json.

    Raises:
        MtlkitError: scipy, of the extra `bench`, is not installed.
    """
    found, axes = Findings.of(result), _axes(result)
    rows = [[_named(row.variant, axis) for axis in axes] for row in found.rows]
    rows += [[_CONSTANT, *[""] * (len(axes) - 1)]] * bool(result.constant)
    names = sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))
    room = console.width - names - _OTHER_COLUMNS - _GAIN_COLUMN * found.has_baselines
    tasks = list(result.measures)[: max(room // _TASK_COLUMN, 1)]
    console.print()
    console.print(_table(found, axes, rows, tasks))
    for run in result.failed:
        console.print(Text(f"{title_of_run(run)} failed: {printable(run.failed or '')}"), soft_wrap=True)
    for sentence in told_not_learned(found):
        console.print(Text(sentence), soft_wrap=True)
    console.print(_legend(found, len(result.measures) - len(tasks)), highlight=False)


def line(result: Result, run: Run) -> Text:
    """One run that ended: "cnn/mmoe, seed 0: left accuracy 0.989, right accuracy 0.984"."""
    if run.test is None:
        return Text(f"{title_of_run(run)}: failed: {printable(run.failed or '')}")
    figures = [
        f"{printable(task)} {measure.metric} {run.test[task][measure.metric]:.4g}"
        for task, measure in result.measures.items()
        if task in run.test
    ]
    more = [f"{len(figures) - _MAX_FIGURES} more"] * (len(figures) > _MAX_FIGURES)
    return Text(f"{title_of_run(run)}: " + ", ".join([*figures[:_MAX_FIGURES], *more]))


def _axes(result: Result) -> list[str]:
    """What varies, of trunk, sharing and balancer; the whole name where none does."""
    every = result.variants.values()
    seen: dict[str, set[str | None]] = {
        "trunk": {variant.trunk for variant in every},
        "sharing": {variant.sharing for variant in every},
        "balancer": {variant.balancer for variant in every if not variant.is_baseline},
    }
    return [axis for axis, names in seen.items() if len(names) > 1] or ["name"]


def _named(variant: Variant, axis: str) -> str:
    name = getattr(variant, axis)
    return short(printable(name), _NAME) if name is not None else _ALONE if axis == "sharing" else ABSENT


def _table(found: Findings, axes: list[str], rows: list[list[str]], tasks: list[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for axis in axes:
        table.add_column("variant" if axis == "name" else axis, no_wrap=True)
    for task in tasks:
        measure = found.result.measures[task]
        title = f"{short(printable(task), _TITLE)}\n{short(measure.metric, _TITLE - 2)}{arrow(measure)}"
        table.add_column(Text(title), justify="right", no_wrap=True)
    titles = ["Δm %"] * found.has_baselines + ["parameters", "ms\na step"] + ["runs"] * bool(found.result.failed)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    decimals = {task: found.decimals(task) for task in tasks}
    figures = [_figures(found, row, decimals) for row in found.rows]
    constant = [figure(found.result.constant_of(task), places) for task, places in decimals.items()]
    figures += [[*constant, *[""] * len(titles)]] * bool(found.result.constant)
    for names, cells in zip(rows, figures, strict=True):
        table.add_row(*map(Text, [*names, *cells]))
    return table


def _figures(found: Findings, row: Row, decimals: dict[str, int]) -> list[str]:
    cells = [
        estimated(row.tasks[task].estimate, d) if row.finished or row.tasks[task].by_seed else "failed"
        for task, d in decimals.items()
    ]
    if found.has_baselines:
        cells.append(_gain(row, found.gain_decimals))
    cells.append(f"{row.variant.parameters:,}")
    step = row.cost.seconds_per_step
    cells.append(ABSENT if step is None else f"{1000 * step:.2f}")
    if found.result.failed:
        cells.append(f"{row.finished} of {row.finished + row.failed}")
    return cells


def _gain(row: Row, decimals: int) -> str:
    """Delta-m in per cent."""
    if row.gain_percent is None:
        return ABSENT
    return estimated(row.gain_percent, decimals, sign=not row.variant.is_baseline)


def _legend(found: Findings, more: int) -> str:
    seeds = found.result.seeds
    over = "1 seed" if seeds == 1 else f"mean ± half the 95 % interval over {seeds} seeds"
    words = f"Test data, {over}; the epoch of each run was chosen on validation data."
    if found.has_baselines:
        words += " Δm: mean relative gain over each task alone with the same trunk."
    if found.result.constant:
        words += " constant: the same prediction for every example, the best for the training labels."
    return words + (f" results.json has {counted(more, 'more task')}." if more > 0 else "")
