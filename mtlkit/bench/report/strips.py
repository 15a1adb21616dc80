"""The geometry of the strips: a task's scores of each variant on one line, seeds, mean and interval.

ticks, strip_of, constant = strips(found, "left")
strip_of["cnn/hard/sum"].mean      # 43.2: per cent of the strip's width, however wide it is drawn
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtlkit.bench.findings import Cell, Findings
from mtlkit.bench.report.axis import Axis, Tick
from mtlkit.bench.wording import ABSENT, estimated, figure

FEW_TASKS = 3
"""Of no more tasks the strips are wide, and have room for more ticks."""


@dataclass(frozen=True)
class Strip:
    """A variant's scores of one task, as places in per cent of the strip's width.

    `mean` is None where it is unknown, `low` and `high` where there is no interval, `alone` where there is no baseline,
    and `constant`, what a constant prediction scores, where that is unknown or outside of the strip.
    `beyond` is "‹" or "›" with the mean where that is outside of the strip. `cut` holds "‹" and "›" where an end of the
    interval or a seed is, of which the title tells.
    """

    mean: float | None
    low: float | None
    high: float | None
    seeds: list[float]
    alone: float | None
    constant: float | None
    beyond: str
    cut: str
    title: str


def strips(found: Findings, task: str) -> tuple[tuple[Tick, ...], dict[str, Strip], Strip | None]:
    """The ticks of a task's strips, the strip of each variant, and that of the constant prediction, if it is known."""
    cells = {row.variant.name: row.tasks[task] for row in found.rows}
    values = [value for cell in cells.values() for value in cell.by_seed.values() if math.isfinite(value)]
    if not values:
        return (), {name: Strip(None, None, None, [], None, None, "", "", "no figure") for name in cells}, None
    ticks = 3 if len(found.result.measures) <= FEW_TASKS else 2
    axis = _strip_axis(values, [cell for cell in cells.values() if math.isfinite(cell.estimate.mean)], ticks)
    decimals = found.decimals(task)
    constant, drawn = found.result.constant_of(task), {}
    for name, cell in cells.items():
        alone = found.result.baseline_of(name)
        base = math.nan if alone is None or alone == name else cells[alone].estimate.mean
        drawn[name] = _strip(cell, axis, decimals, base, constant)
    return axis.ticks, drawn, None if constant is None else _constant(constant, axis, decimals)


def _strip_axis(values: Sequence[float], cells: Sequence[Cell], ticks: int) -> Axis:
    """As wide as the seeds, and wider for intervals, but not much: those of two seeds can be ten times as wide."""
    seeds = Axis.of(values, ticks)
    room = 0.4 * (seeds.high - seeds.low)
    ends = [c.estimate.mean + side * (c.estimate.half or 0) for c in cells for side in (-1, 1)]
    ends = [min(max(end, seeds.low - room), seeds.high + room) for end in ends]
    return Axis.of([min([seeds.low, *ends]), max([seeds.high, *ends])], ticks, pad=0.08)


def _strip(cell: Cell, axis: Axis, decimals: int, alone: float, constant: float | None) -> Strip:
    def place(value: float) -> float:
        return _place(value, axis)

    base = place(alone) if math.isfinite(alone) and axis.within(alone) else None
    line = None if constant is None or not axis.within(constant) else place(constant)
    title = estimated(cell.estimate, decimals) + (f", alone {figure(alone, decimals)}" if math.isfinite(alone) else "")
    known = [value for value in cell.by_seed.values() if math.isfinite(value)]
    seeds = [place(value) for value in known if axis.within(value)]
    mean, half = cell.estimate.mean, cell.estimate.half
    if not math.isfinite(mean):
        return Strip(None, None, None, seeds, base, line, "", "", title if cell.by_seed else ABSENT)
    ends = [] if half is None else [mean - half, mean + half]
    cut = "‹" * (min([*known, *ends]) < axis.low) + "›" * (max([*known, *ends]) > axis.high)
    if cut:
        title += f", seeds from {figure(min(known), decimals)} to {figure(max(known), decimals)}"
    low, high = map(place, ends) if ends else (None, None)
    return Strip(place(mean), low, high, seeds, base, line, _beyond(mean, axis, decimals), cut, title)


def _constant(value: float, axis: Axis, decimals: int) -> Strip:
    beyond, text = _beyond(value, axis, decimals), figure(value, decimals)
    return Strip(_place(value, axis), None, None, [], None, None, beyond, "", text)


def _place(value: float, axis: Axis) -> float:
    return 100 * min(max(axis.at(value), 0.015), 0.985)


def _beyond(value: float, axis: Axis, decimals: int) -> str:
    """ "‹ 0.11" or "0.99 ›" of what is outside of the strip."""
    text = figure(value, decimals)
    return "" if axis.within(value) else f"‹ {text}" if value < axis.low else f"{text} ›"
