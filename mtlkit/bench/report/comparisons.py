"""Every comparison that was made, in figures: what the answer says in words.

group = comparisons_of(found)[0]
group.first, group.of        # "cnn/mmoe/upgrad", "Δm, %": how much better it is than the one of each row
group.rows[0]                # Compared("cnn/hard/sum", "+3.1", "[2.1, 4.1]", "0.010", "t", 5, is_shown=True)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtlkit.bench.findings import Findings
from mtlkit.bench.statistics import Difference
from mtlkit.bench.wording import ABSENT, figure, interval, isolated, percent_decimals, probability

NOTE = (
    "p is corrected for the number of comparisons, and where the best was chosen by the same figures for that choice. "
    "Intervals are of one comparison each, and not corrected. A difference below 0 is in favour of the other."
)


@dataclass(frozen=True)
class Compared:
    """A row: its p and how it was tested, or why nothing could be."""

    name: str
    gain: str
    interval: str
    p: str
    test: str
    seeds: int
    is_shown: bool


@dataclass(frozen=True)
class Group:
    """How much better `first` is than the variant of each row; "" where each is compared with its baseline.

    `is_overall` is over all tasks, else of one.
    """

    first: str
    of: str
    rows: list[Compared]
    is_overall: bool

    @property
    def title(self) -> str:
        """ "How much better cnn/hard is (Δm, %)"."""
        what = f"{isolated(self.first)} is" if self.first else "than training each task alone"
        return f"How much better {what} ({self.of})"


def comparisons_of(found: Findings) -> list[Group]:
    """Those of the best with each other variant, of each with training tasks alone, and of the best in each task."""
    if found.result.seeds == 1:
        return []
    groups = []
    if found.best is not None and found.others:
        rows = _rows(found.others, found.others_decimals, 100 if found.by == "gain" else 1)
        groups.append(Group(found.best, _OF.get(found.by, _measure(found, found.ranking.task or "")), rows, True))
    if found.alone:
        groups.append(Group("", "Δm, %", _rows(found.alone, percent_decimals(found.alone.values()), 100), True))
    for task in found.result.measures:
        versus = {row.variant.name: one for row in found.rows if (one := row.tasks[task].versus) is not None}
        if versus:
            first = found.best_of(task)[0].variant.name
            groups.append(Group(first, _measure(found, task), _rows(versus, found.decimals(task), 1), False))
    return groups


_OF = {"gain": "Δm, %", "rank": "mean over tasks, in standard deviations over seeds"}


def _measure(found: Findings, task: str) -> str:
    return f"{isolated(task)}, {found.result.measures[task].metric}" if task else ""


def _rows(differences: Mapping[str, Difference], decimals: int, times: int) -> list[Compared]:
    return [_row(name, one, decimals, times) for name, one in differences.items()]


def _row(name: str, one: Difference, decimals: int, times: int) -> Compared:
    if one.p is None:
        return Compared(name, ABSENT, "", "", one.why, one.seeds, False)
    half = None if one.half is None else times * one.half
    return Compared(
        name,
        figure(times * one.gain, decimals, sign=True),
        interval(times * one.gain, half, decimals),
        probability(one.p).removeprefix("p = ").removeprefix("p "),
        one.test,
        one.seeds,
        one.shown,
    )
