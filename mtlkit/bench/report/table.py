"""The main table of the report, of HTML, Markdown and LaTeX alike: its columns, and the text of each cell.

columns_of(found)[0]           # Column("left", "accuracy ↑", "descending")
table_of(found)[0].cells[0]    # Figure("0.989", "0.003", sort="0.98871", is_best=True, ...)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mtlkit.bench.findings import Findings, Row
from mtlkit.bench.statistics import Difference
from mtlkit.bench.wording import ABSENT, CONSTANT, arrow, compared, counted, duration, figure, isolated, number
from mtlkit.errors import printable


@dataclass(frozen=True)
class Column:
    """A column; `first` is the order that a first click sorts it in, the best above."""

    name: str
    of: str
    first: str


@dataclass(frozen=True)
class Figure:
    """A cell: a mean and half its interval as texts; "" where there is none.

    `is_best` has no better one in its column; `mark` is "≈" where no difference from it is shown, and "?" where none
    could be tested; `title` says so in words, or why a figure is unknown.
    """

    mean: str
    half: str = ""
    sort: str = ""
    is_best: bool = False
    mark: str = ""
    title: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    is_baseline: bool
    cells: list[Figure]


def columns_of(found: Findings) -> list[Column]:
    """The columns after the variant's name."""
    tasks = [
        Column(task, f"{measure.metric}{arrow(measure)}", "descending" if measure.higher_is_better else "ascending")
        for task, measure in found.result.measures.items()
    ]
    gain = [Column("Δm", "% ↑", "descending")] * found.has_baselines
    rank = [Column("Mean rank", "↓", "ascending")] * (len(found.rows) > 1)
    costs = [("Parameters", ""), ("FLOPs", "an example"), ("Step", "ms"), ("Training", "time")]
    runs = [Column("Runs", "", "descending")] * bool(found.result.failed)
    return [*tasks, *gain, *rank, *(Column(name, of, "ascending") for name, of in costs), *runs]


def table_of(found: Findings) -> list[Line]:
    """The rows, in the order of the variants, and below them that of the constant prediction."""
    decimals = {task: found.decimals(task) for task in found.result.measures}
    lines = [
        Line(
            row.variant.name,
            row.variant.is_baseline,
            [*_tasks(found, row, decimals), *_ranked(found, row), *_costs(row), *_runs(found, row)],
        )
        for row in found.rows
    ]
    return [*lines, _constant(found, decimals)] if found.result.constant else lines


def legend_of(found: Findings) -> str:
    """What the table shows, and what its marks mean."""
    words = ["Test data, scored once a run."]
    seeds, ranked = found.result.seeds, _RANKED.get(found.by)
    if seeds > 1:
        tested = found.result.examples.get("test")
        same = "test examples" if tested is None else counted(tested, "test example")
        words.append(
            f"Mean over {counted(seeds, 'seed')} ± half the 95 % interval. All runs are scored on the same {same},"
        )
        words.append("whose own sampling error is not in the interval.")
        where = f"the columns of tasks and in {ranked}" if ranked else "the columns of tasks"
        words.append(f"In {where} the best is bold, ≈ is not shown to differ from it, and ? could not be tested.")
        if ranked and found.has_baselines:
            words.append(f"Baselines (in italics) are not marked in {ranked}.")
    else:
        words.append("One seed: no difference can be shown. The best are in bold.")
    if found.has_baselines:
        words.append("Δm: the mean relative gain over training each task alone with the same trunk.")
    if found.result.constant:
        words.append(f"A {CONSTANT} is the same for every example, the best for the training labels:")
        words.append("a model should be better.")
    return " ".join(words)


# The column that variants are ranked by, unless that is one of a task.
_RANKED = {"gain": "Δm", "rank": "Mean rank"}


def _tasks(found: Findings, row: Row, decimals: Mapping[str, int]) -> list[Figure]:
    cells = []
    for task, places in decimals.items():
        cell, best = row.tasks[task], found.best_of(task)
        mean, half = cell.estimate.mean, cell.estimate.half
        if not math.isfinite(mean):
            why = "undefined in a run" if cell.by_seed else "failed" if row.failed else "no run"
            cells.append(Figure(ABSENT, title=why))
            continue
        width, mark, title = "" if half is None else figure(half, places), "", ""
        if best and not cell.is_best:
            mark, title = _marked(found, cell.versus, best[0].variant.name, row.variant.name, places, "")
        cells.append(Figure(figure(mean, places), width, repr(mean), cell.is_best, mark, title))
    return cells


def _constant(found: Findings, decimals: Mapping[str, int]) -> Line:
    """What the best constant prediction scores; it costs nothing, and is not ranked."""
    values = {task: found.result.constant_of(task) for task in decimals}
    cells = [Figure(figure(value, decimals[task]), sort=_sort(value)) for task, value in values.items()]
    return Line(CONSTANT, True, cells + [Figure("")] * (len(columns_of(found)) - len(cells)))


def _ranked(found: Findings, row: Row) -> list[Figure]:
    """Delta-m and the mean rank; the one that variants are ranked by has marks."""
    cells = [_with_mark(found, row, _gain(found, row), "gain")] * found.has_baselines
    return cells + [_with_mark(found, row, _rank(row), "rank")] * (len(found.rows) > 1)


def _gain(found: Findings, row: Row) -> Figure:
    gain, decimals = row.gain_percent, found.gain_decimals
    if gain is None:
        return Figure(ABSENT, title=printable(row.gain.why))
    half = "" if gain.half is None else figure(gain.half, decimals)
    return Figure(figure(gain.mean, decimals, sign=not row.variant.is_baseline), half, repr(gain.mean))


def _rank(row: Row) -> Figure:
    if row.rank is None:
        return Figure(ABSENT, title="no figure of every task in as many seeds as others")
    return Figure(figure(row.rank, 2), sort=repr(row.rank))


def _with_mark(found: Findings, row: Row, cell: Figure, by: str) -> Figure:
    name, best = row.variant.name, found.best
    if by != found.by or best is None or cell.mean == ABSENT:
        return cell
    mark, title = _marked(found, found.others.get(name), best, name, found.others_decimals, found.others_unit)
    return replace(cell, is_best=name == best, mark=mark, title=title)


def _marked(
    found: Findings, versus: Difference | None, best: str, name: str, decimals: int, unit: str
) -> tuple[str, str]:
    """The mark of a cell beside the best of its column, and what it says in words; of one seed none has any."""
    if versus is None or versus.shown or found.result.seeds == 1:
        return "", ""
    return "?" if versus.p is None else "≈", compared(versus, isolated(best), isolated(name), decimals, unit)


def _costs(row: Row) -> list[Figure]:
    cost = row.cost
    step = None if cost.seconds_per_step is None else 1000 * cost.seconds_per_step
    return [
        Figure(f"{cost.parameters:,}", sort=repr(cost.parameters)),
        Figure(ABSENT if cost.flops is None else number(cost.flops), sort=_sort(cost.flops)),
        Figure(ABSENT if step is None else f"{step:.2f}", sort=_sort(step)),
        Figure(ABSENT if cost.seconds is None else duration(cost.seconds), sort=_sort(cost.seconds)),
    ]


def _runs(found: Findings, row: Row) -> list[Figure]:
    """How many runs the means are of, where some failed."""
    text = f"{row.finished} of {row.finished + row.failed}"
    return [Figure(text, sort=str(row.finished))] * bool(found.result.failed)


def _sort(value: float | None) -> str:
    return "" if value is None else repr(value)
