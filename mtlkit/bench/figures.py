"""The main table of the report, of HTML, Markdown and LaTeX alike: its columns, and the text of each cell.

columns_of(found)[0]           # Column("left", "accuracy ↑", "descending")
table_of(found)[0].cells[0]    # Figure("0.989", "0.003", sort="0.98871", is_best=True, ...)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mtlkit.bench.findings import Cell, Findings, Row
from mtlkit.bench.table import arrow
from mtlkit.bench.wording import ABSENT, compared, counted, decimals_for, duration, figure, isolated, number
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

    `is_best` has no better one in its column; `is_like` was tested against it, and no difference is shown, as `versus`
    says in words; `why` says why a figure is unknown.
    """

    mean: str
    half: str = ""
    sort: str = ""
    is_best: bool = False
    is_like: bool = False
    versus: str = ""
    why: str = ""


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
    return [*tasks, *gain, *rank, *(Column(name, of, "ascending") for name, of in costs)]


def table_of(found: Findings) -> list[Line]:
    """The rows, in the order of the variants."""
    decimals = {task: decimals_for([row.tasks[task].estimate for row in found.rows]) for task in found.result.measures}
    gains = [row.gain_percent.mean for row in found.rows if row.gain_percent is not None]
    ranks = [row.rank for row in found.rows if row.rank is not None]
    best = (max(gains, default=math.nan), min(ranks, default=math.nan))
    return [
        Line(row.variant.name, row.variant.is_baseline, [*_tasks(found, row, decimals), *_others(found, row, best)])
        for row in found.rows
    ]


def legend_of(found: Findings) -> str:
    """What the table shows."""
    words = ["Test data, scored once a run."]
    if found.result.seeds > 1:
        words.append(f"Mean over {counted(found.result.seeds, 'seed')} ± half the 95 % interval; the best in bold.")
        words.append("≈ is not shown to differ from the best of its column.")
    else:
        words.append("One seed: no difference can be shown. The best are in bold.")
    if found.has_baselines:
        words.append("Δm: the mean relative gain over training each task alone with the same trunk (in italics).")
    return " ".join(words)


def _tasks(found: Findings, row: Row, decimals: Mapping[str, int]) -> list[Figure]:
    best = {task: next((r for r in found.rows if r.tasks[task].is_best), None) for task in decimals}
    cells = []
    for task, places in decimals.items():
        cell, first = row.tasks[task], best[task]
        versus = ""
        if cell.like_best and cell.versus is not None and first is not None:
            versus = compared(cell.versus, isolated(first.variant.name), isolated(row.variant.name), places)
        cells.append(_task(row, cell, places, versus))
    return cells


def _task(row: Row, cell: Cell, places: int, versus: str) -> Figure:
    mean, half = cell.estimate.mean, cell.estimate.half
    if not math.isfinite(mean):
        why = "undefined in a run" if cell.by_seed else "failed" if row.failed else "no run"
        return Figure(ABSENT, why=why)
    width = "" if half is None else figure(half, places)
    return Figure(figure(mean, places), width, repr(mean), cell.is_best, cell.like_best, versus)


def _others(found: Findings, row: Row, best: tuple[float, float]) -> list[Figure]:
    cells = []
    if found.has_baselines:
        gain = row.gain_percent
        if gain is None:
            cells.append(Figure(ABSENT, why=printable(row.gain.why)))
        else:
            half = "" if gain.half is None else figure(gain.half, 1)
            mean = figure(gain.mean, 1, sign=not row.variant.is_baseline)
            # Gains over several baselines do not compare.
            cells.append(Figure(mean, half, repr(gain.mean), found.by == "gain" and gain.mean == best[0]))
    if len(found.rows) > 1:
        rank = row.rank
        cells.append(
            Figure(ABSENT, why="not of every task a figure")
            if rank is None
            else Figure(figure(rank, 2), sort=repr(rank), is_best=rank == best[1])
        )
    cost = row.cost
    step = None if cost.seconds_per_step is None else 1000 * cost.seconds_per_step
    return [
        *cells,
        Figure(f"{cost.parameters:,}", sort=repr(cost.parameters)),
        Figure(ABSENT if cost.flops is None else number(cost.flops), sort=_sort(cost.flops)),
        Figure(ABSENT if step is None else f"{step:.2f}", sort=_sort(step)),
        Figure(ABSENT if cost.seconds is None else duration(cost.seconds), sort=_sort(cost.seconds)),
    ]


def _sort(value: float | None) -> str:
    return "" if value is None else repr(value)
