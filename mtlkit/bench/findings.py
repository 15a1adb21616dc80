"""What a result says: of each variant its figures, gains, rank and costs, and which differences are shown.

    found = Findings.of(result)
    found.best                              # "cnn/mmoe/upgrad"; None where nothing can be ranked
    found.others["cnn/hard/sum"]            # how much better the best is, paired by seed, corrected by Holm
    found.rows[0].tasks["left"].estimate    # the mean over seeds and its interval
    found.alone["cnn/hard/sum"]             # the same against training each task alone

The table, the report and its files all read it from here. Variants are ranked by their mean relative gain over training
each task alone where all have the same trunk, else by their mean rank: a gain over a weak baseline is no merit. They
are compared by what they are ranked by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from mtlkit.bench.gains import Gain, gain_over, relative_gain
from mtlkit.bench.result import Result, Run, Variant
from mtlkit.bench.statistics import (
    Difference,
    Estimate,
    best,
    compare,
    corrected,
    estimate,
    front,
    mean_rank,
)


@dataclass(frozen=True)
class Cell:
    """A variant's main figure of one task on test data.

    Attributes:
        by_seed: of the runs that finished.
        estimate: over these.
        is_best: whether it has the best mean of all, baselines among them.
        like_best: whether it was tested against the best, and no difference is shown.
        versus: how much better the best is; None of the best itself and where no direction is better.
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
        by: "gain" or "rank", by which variants are ranked.
        best: the best of the variants that are no baselines.
        others: how much better it is than each of these, in gain or rank by seed.
        alone: how much better each of these is than training each task alone with its trunk, in gain by seed.
    """

    result: Result
    rows: list[Row]
    by: str
    best: str | None
    others: dict[str, Difference]
    alone: dict[str, Difference]

    @staticmethod
    def of(result: Result) -> Findings:
        """Find it.

        Raises:
            MtlkitError: scipy, of the extra `bench`, is not installed.
        """
        higher = {task: measure.higher_is_better for task, measure in result.measures.items()}
        scores = {name: {task: result.scores(name, task) for task in higher} for name in result.variants}
        cells = {task: _cells({name: scores[name][task] for name in scores}, higher[task]) for task in higher}
        means = {task: {name: cell.estimate.mean for name, cell in found.items()} for task, found in cells.items()}
        ranks = mean_rank(means, higher)
        gains = {name: _gain(result, name, scores, higher) for name in scores}
        rows = [
            Row(
                variant,
                {task: cells[task][name] for task in higher},
                gains[name],
                _percent(variant, gains[name]),
                ranks.get(name),
                _cost(variant, result.runs_of(name)),
                len(result.runs_of(name)),
                sum(run.variant == name for run in result.failed),
            )
            for name, variant in result.variants.items()
        ]
        names = [variant.name for variant in result.compared]
        same_trunk = len({variant.trunk for variant in result.variants.values()}) == 1
        by = "gain" if same_trunk and any(gains[name].by_seed for name in names) else "rank"
        first = _best_by_gain(names, gains) if by == "gain" else _best_by_rank(names, ranks, scores, higher)
        qualities = {name: gain.by_seed for name, gain in gains.items()}
        if by == "rank":
            qualities = _ranks_by_seed([*ranks], scores, higher)
        others = {} if first is None else compare({name: qualities.get(name, {}) for name in names}, first, higher=True)
        alone = {name: gains[name] for name in names if result.baseline_of(name) is not None}
        return Findings(
            result, rows, by, first, others, corrected({name: gain_over(gain) for name, gain in alone.items()})
        )

    @property
    def has_baselines(self) -> bool:
        return any(row.variant.is_baseline for row in self.rows)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.variant.name == name)

    def quality(self, row: Row) -> float | None:
        """By which variants are ranked, more is better: delta-m in per cent, or the mean rank below 0."""
        if self.by == "gain":
            return None if row.gain_percent is None else row.gain_percent.mean
        return None if row.rank is None else -row.rank

    def ranked(self, rows: Iterable[Row]) -> list[Row]:
        """The best first; those of unknown quality last."""
        return sorted(rows, key=lambda row: -math.inf if (q := self.quality(row)) is None else q, reverse=True)

    def front(self, cost: Mapping[str, float]) -> list[str]:
        """The variants that no other beats in quality and this cost, the cheapest first."""
        points = {name: (quality, cost[name]) for name in cost if (quality := self.quality(self.row(name))) is not None}
        return front(points)


def _cells(scores: Mapping[str, dict[int, float]], higher: bool | None) -> dict[str, Cell]:
    first = None if higher is None else best(scores, higher)
    versus = {} if first is None or higher is None else compare(scores, first, higher)
    return {
        name: Cell(
            by_seed,
            estimate([*by_seed.values()]),
            name == first,
            name in versus and versus[name].p is not None and not versus[name].shown,
            versus.get(name),
        )
        for name, by_seed in scores.items()
    }


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


def _best_by_gain(names: Sequence[str], gains: Mapping[str, Gain]) -> str | None:
    return best({name: gains[name].by_seed for name in names}, higher=True)


def _best_by_rank(
    names: Sequence[str],
    ranks: Mapping[str, float],
    scores: Mapping[str, Mapping[str, Mapping[int, float]]],
    higher: Mapping[str, bool | None],
) -> str | None:
    """The lowest mean rank; of those that share it, the one with the largest relative gain over the first of them."""
    lowest = min((ranks[name] for name in names if name in ranks), default=math.inf)
    tied = [name for name in names if ranks.get(name) == lowest]
    if len(tied) < 2:
        return tied[0] if tied else None
    gains = {name: relative_gain(scores[name], scores[tied[0]], higher).by_seed.values() for name in tied}
    return max(tied, key=lambda name: fmean(gains[name]) if gains[name] else 0.0)


def _ranks_by_seed(
    names: Sequence[str], scores: Mapping[str, Mapping[str, dict[int, float]]], higher: Mapping[str, bool | None]
) -> dict[str, dict[int, float]]:
    """The mean rank below 0, so that more is better, in each seed that all of them have."""
    seeds = set.intersection(*({*by_seed} for name in names for by_seed in scores[name].values())) if names else set()
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for seed in sorted(seeds):
        values = {task: {name: scores[name][task][seed] for name in names} for task in higher}
        for name, rank in mean_rank(values, higher).items():
            found[name][seed] = -rank
    return found


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
