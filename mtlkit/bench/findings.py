"""What a result says: of each variant its figures, gains, rank and costs, and which differences are shown.

    found = Findings.of(result)
    found.best                              # "cnn/mmoe/upgrad"; None where nothing can be ranked
    found.others["cnn/hard/sum"]            # how much better the best is, paired by seed, corrected by Holm
    found.rows[0].tasks["left"].estimate    # the mean over seeds and its interval
    found.alone["cnn/hard/sum"]             # the same against training each task alone

The table, the report and its files all read it from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from mtlkit.bench.gains import Gain, gain_over, relative_gain
from mtlkit.bench.ranking import Ranking
from mtlkit.bench.result import Result, Run, Variant
from mtlkit.bench.statistics import (
    Difference,
    Estimate,
    best,
    compare_chosen,
    corrected,
    difference,
    estimate,
    front,
)
from mtlkit.bench.wording import decimals_for


@dataclass(frozen=True)
class Cell:
    """A variant's main figure of one task on test data.

    Attributes:
        by_seed: of the runs that finished.
        estimate: over these.
        is_best: whether it has the best mean of all, baselines among them; several may share it.
        like_best: whether it was tested against the first of the best, and no difference is shown.
        versus: how much better that one is; None of itself and where no direction is better.
    """

    by_seed: dict[int, float]
    estimate: Estimate
    is_best: bool
    like_best: bool
    versus: Difference | None


@dataclass(frozen=True)
class Cost:
    """What a variant costs: of a baseline all its tasks' models together, and the largest memory of one of them.

    Attributes:
        parameters: their number.
        flops: of the forward and backward pass of one example.
        seconds: of a whole training, the mean over seeds.
        seconds_per_step: the median over runs.
        memory: bytes that were taken on the accelerator at most, or else those that a step is estimated to take.
    """

    parameters: float
    flops: float | None
    seconds: float | None
    seconds_per_step: float | None
    memory: float | None


@dataclass(frozen=True)
class Row:
    """A variant. `gain` is delta-m, `gain_percent` its mean in per cent, `rank` the mean rank over tasks."""

    variant: Variant
    tasks: dict[str, Cell]
    gain: Gain
    gain_percent: Estimate | None
    rank: float | None
    cost: Cost
    finished: int
    failed: int


@dataclass(frozen=True)
class Findings:
    """All that a result says.

    Attributes:
        result: that it is of.
        rows: of the variants, in the order of the bench file.
        ranking: which variant is best, by what, and how much better it is than each other one.
        alone: how much better each of these is than training each task alone with its trunk, in gain by seed.
        fewer: variants that have runs of fewer seeds than others, and so are ranked nowhere: a mean of few may be luck.
    """

    result: Result
    rows: list[Row]
    ranking: Ranking
    alone: dict[str, Difference]
    fewer: list[str]

    @staticmethod
    def of(result: Result) -> Findings:
        """Find it.

        Raises:
            MtlkitError: scipy, of the extra `bench`, is not installed.
        """
        higher = {task: measure.higher_is_better for task, measure in result.measures.items()}
        scores = {name: {task: result.scores(name, task) for task in higher} for name in result.variants}
        cells = {task: _cells({name: scores[name][task] for name in scores}, higher[task]) for task in higher}
        gains = {name: _gain(result, name, scores, higher) for name in scores}
        ranking = Ranking.of(result, scores, higher, gains)
        rows = [
            Row(
                variant,
                {task: cells[task][name] for task in higher},
                gains[name],
                _percent(variant, gains[name]),
                ranking.ranks.get(name),
                _cost(variant, result.runs_of(name)),
                len(result.runs_of(name)),
                sum(run.variant == name for run in result.failed),
            )
            for name, variant in result.variants.items()
        ]
        alone = [one.name for one in result.compared if result.baseline_of(one.name) is not None]
        differences = corrected({name: gain_over(gains[name]) for name in alone})
        return Findings(result, rows, ranking, differences, _fewer(result))

    @property
    def has_baselines(self) -> bool:
        return any(row.variant.is_baseline for row in self.rows)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.variant.name == name)

    @property
    def by(self) -> str:
        return self.ranking.by

    @property
    def best(self) -> str | None:
        return self.ranking.best

    @property
    def others(self) -> dict[str, Difference]:
        return self.ranking.others

    @property
    def higher(self) -> bool:
        """Whether more is better of what variants are ranked by."""
        task = self.ranking.task
        return self.by == "gain" or (task is not None and bool(self.result.measures[task].higher_is_better))

    def best_of(self, task: str) -> list[Row]:
        """Those with the best mean of a task; several where they tie."""
        return [row for row in self.rows if row.tasks[task].is_best]

    @property
    def side_by_side(self) -> int:
        """How many of the timed runs there were at the same time, at most."""
        return max((run.jobs for run in self.result.runs if run.seconds is not None), default=1)

    @property
    def ahead(self) -> dict[str, Difference]:
        """Those that the sizes of differences put before the best by mean rank, the furthest first; shown or not.

        A difference that is written as 0.0 puts nobody first.
        """
        if self.by != "rank":
            return {}
        places = self.others_decimals
        ahead = {name: one for name, one in self.others.items() if round(one.gain, places) < 0}
        return dict(sorted(ahead.items(), key=lambda named: named[1].gain))

    @property
    def baselines_as_good(self) -> list[Row]:
        """The baselines that are at least as good as the best, by what variants are ranked by."""
        if self.best is None or (least := self._signed(self.row(self.best))) is None:
            return []
        baselines = [row for row in self.rows if row.variant.is_baseline]
        return [row for row in baselines if (quality := self._signed(row)) is not None and quality >= least]

    def decimals(self, task: str) -> int:
        """Those that a task's figures are written with."""
        return decimals_for([row.tasks[task].estimate for row in self.rows])

    @property
    def gain_decimals(self) -> int:
        """Those of delta-m in per cent."""
        return max(1, decimals_for([row.gain_percent for row in self.rows if row.gain_percent is not None]))

    @property
    def others_decimals(self) -> int:
        """Those of how much better the best is: of a score, in per cent, or in standard deviations."""
        if self.ranking.task is not None:
            return self.decimals(self.ranking.task)
        if self.by == "gain":
            return self.gain_decimals
        return max(1, decimals_for([Estimate(one.gain, one.half, one.seeds) for one in self.others.values()]))

    @property
    def others_unit(self) -> str:
        """Its unit: "" of a score, "%" of a gain, and "SD over seeds"."""
        return {"gain": "%", "score": "", "rank": "SD over seeds"}[self.by]

    def quality(self, row: Row) -> float | None:
        """What variants are ranked by: delta-m in per cent, the mean score of the one task, or the mean rank.

        None of those that are ranked nowhere, since a figure is undefined or others have more seeds.
        """
        if row.variant.name in self.fewer:
            return None
        if self.by == "gain":
            return None if row.gain_percent is None else row.gain_percent.mean
        if self.ranking.task is None:
            return row.rank
        mean = row.tasks[self.ranking.task].estimate.mean
        return mean if math.isfinite(mean) else None

    def ranked(self, rows: Iterable[Row]) -> list[Row]:
        """The best first; those of unknown quality last."""
        return sorted(rows, key=lambda row: -math.inf if (q := self._signed(row)) is None else q, reverse=True)

    def front(self, cost: Mapping[str, float]) -> list[str]:
        """The Pareto front of the variants in quality and this cost, the cheapest first."""
        points = {name: (quality, cost[name]) for name in cost if (quality := self._signed(self.row(name))) is not None}
        return front(points)

    def _signed(self, row: Row) -> float | None:
        """Its quality, of which more is better."""
        quality = self.quality(row)
        return quality if quality is None or self.higher else -quality


def _cells(scores: Mapping[str, dict[int, float]], higher: bool | None) -> dict[str, Cell]:
    top, versus = [] if higher is None else best(scores, higher), {}
    if top:
        names = [top[0], *(name for name in scores if name != top[0])]
        versus = compare_chosen(names, lambda mine, other: difference(scores[mine], scores[other], bool(higher)))
    alike = {name for name, one in versus.items() if one.p is not None and not one.shown and name not in top}
    return {
        name: Cell(by_seed, estimate([*by_seed.values()]), name in top, name in alike, versus.get(name))
        for name, by_seed in scores.items()
    }


def _fewer(result: Result) -> list[str]:
    seeds = {one.name: len({run.seed for run in result.runs_of(one.name)}) for one in result.compared}
    most = max(seeds.values(), default=0)
    return [name for name, count in seeds.items() if 0 < count < most]


def _gain(
    result: Result, name: str, scores: Mapping[str, dict[str, dict[int, float]]], higher: Mapping[str, bool | None]
) -> Gain:
    baseline = result.baseline_of(name)
    if baseline is None:
        return Gain({}, why="no task was trained alone with this trunk")
    return relative_gain(scores[name], scores[baseline], higher)


def _percent(variant: Variant, gain: Gain) -> Estimate | None:
    """Of a baseline 0 without an interval: it is what gains are relative to."""
    if not gain.by_seed:
        return None
    found = estimate([100 * value for value in gain.by_seed.values()])
    return Estimate(0.0, None, found.seeds) if variant.is_baseline else found


def _cost(variant: Variant, runs: Sequence[Run]) -> Cost:
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    by_task: dict[str | None, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    if variant.is_baseline and len(by_task) < len(variant.spec["tasks"]):
        by_task = {}  # the time of some tasks is not that of all
    return Cost(
        variant.parameters,
        variant.flops,
        _summed([[run.seconds for run in some] for some in by_task.values()], fmean),
        _summed([[run.seconds_per_step for run in some] for some in by_task.values()], median),
        max(peaks) if peaks else variant.step_bytes,
    )


def _summed(groups: list[list[float | None]], middle: Callable[[list[float]], float]) -> float | None:
    """The sum over tasks that were trained one by one of the middle of their runs; None where one has no figure."""
    known = [[value for value in group if value is not None] for group in groups]
    return sum(map(middle, known)) if known and all(known) else None
