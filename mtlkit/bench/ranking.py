"""Which variant is best, by what, and how much better it is than the others.

    ranking = Ranking.of(result, scores, higher, gains)
    ranking.by, ranking.best           # "gain", "cnn/mmoe/upgrad"
    ranking.others["cnn/hard/sum"]     # how much better the best is

Variants are ranked by their mean relative gain over training each task alone where all have the same trunk: a gain over
a weak baseline is no merit. Else by their scores where those of one task alone say which is better, and by their mean
rank over tasks where several do. Ranks choose the best, but two variants are compared by their own scores alone: the
distance of two ranks changes with every further variant (Benavoli, Corani and Mangili, JMLR 2016), and ranks that are
the same in every seed do not spread, so that nothing could be shown of one that wins always. Of scores in their own
units a task whose errors are near 0 would count for most of the mean: so each is in standard deviations over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mtlkit.bench.gains import Gain, gain_over, standard_difference
from mtlkit.bench.result import Result
from mtlkit.bench.statistics import Difference, best, compare_chosen, difference, mean_rank

Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Figures by variant, task and seed."""
Directions = Mapping[str, bool | None]
"""By task whether higher is better; None where nobody knows."""
Versus = Callable[[str, str], Difference]
"""How much better one variant is than another."""


@dataclass(frozen=True)
class Ranking:
    """What variants are ranked by, and the best of them that is no baseline.

    Attributes:
        by: "gain", "score" or "rank".
        task: that of the score; None by gain and rank.
        ranks: the mean rank over tasks of each that has figures of every task in as many seeds as any.
        best: None where nothing can be ranked.
        others: how much better it is than each other one, in gain, in score, or in the mean over tasks of their
            differences in standard deviations over seeds.
        why: why nothing can be ranked, or "".
    """

    by: str
    task: str | None
    ranks: dict[str, float]
    best: str | None
    others: dict[str, Difference]
    why: str = ""

    @staticmethod
    def of(result: Result, scores: Scores, higher: Directions, gains: Mapping[str, Gain]) -> Ranking:
        """Rank the variants by these scores and gains over their baselines."""
        names = [variant.name for variant in result.compared]
        ranks, known = _ranks(names, scores, higher), [task for task in higher if higher[task] is not None]
        one_trunk = len({variant.trunk for variant in result.variants.values()}) == 1
        task: str | None = None
        if one_trunk and any(gains[name].by_seed for name in names):
            by, tops, versus = "gain", *_by_gain(names, gains)
        elif len(known) == 1:
            task = known[0]
            by, tops, versus = "score", *_by_score({name: scores[name][task] for name in names}, bool(higher[task]))
        else:
            by, tops, versus = "rank", *_by_rank(names, ranks, scores, higher)
        if not tops:
            return Ranking(by, task, ranks, None, {}, _why(result, names, known))
        ordered = [tops[0], *(name for name in names if name != tops[0])]
        others = compare_chosen(ordered, versus, tasks=len(known) if by == "rank" else 1)
        return Ranking(by, task, ranks, tops[0], others)


def _by_gain(names: Sequence[str], gains: Mapping[str, Gain]) -> tuple[list[str], Versus]:
    tops = best({name: gains[name].by_seed for name in names}, higher=True)
    return tops, lambda mine, other: gain_over(gains[mine], gains[other])


def _by_score(scores: Mapping[str, Mapping[int, float]], higher: bool) -> tuple[list[str], Versus]:
    return best(scores, higher), lambda mine, other: difference(scores[mine], scores[other], higher)


def _by_rank(
    names: Sequence[str], ranks: Mapping[str, float], scores: Scores, higher: Directions
) -> tuple[list[str], Versus]:
    """The lowest mean rank; of those that share it, first the one whose scores are the furthest above another's."""
    lowest = min((ranks[name] for name in names if name in ranks), default=math.inf)
    tied = [name for name in names if ranks.get(name) == lowest]

    def lead(name: str) -> float:
        return fmean(standard_difference(scores[name], scores[tied[0]], higher).by_seed.values() or [0.0])

    tops = sorted(tied, key=lead, reverse=True) if len(tied) > 1 else tied
    return tops, lambda mine, other: gain_over(standard_difference(scores[mine], scores[other], higher))


def _ranks(names: Sequence[str], scores: Scores, higher: Directions) -> dict[str, float]:
    """Mean ranks of those with figures in as many seeds as any of `names` has: a mean over fewer may be luck."""
    known = {task: direction for task, direction in higher.items() if direction is not None}
    seeds = {name: _seeds([found[task] for task in known]) for name, found in scores.items()}
    most = max((seeds[name] for name in names), default=0)
    whole = [name for name in scores if seeds[name] >= max(most, 1)]
    return mean_rank({task: {name: fmean(scores[name][task].values()) for name in whole} for task in known}, known)


def _seeds(by_task: Sequence[Mapping[int, float]]) -> int:
    """In how many seeds there are figures of all tasks; 0 where one is undefined, since its mean is."""
    if not by_task or not all(math.isfinite(value) for by_seed in by_task for value in by_seed.values()):
        return 0
    return len(set.intersection(*({*by_seed} for by_seed in by_task)))


def _why(result: Result, names: Sequence[str], known: Sequence[str]) -> str:
    if not names:
        return "no variant is compared"
    if not known:
        return "of no task it is known which direction is better"
    if not any(result.runs_of(name) for name in names):
        return "every run failed"
    return "no variant has a defined figure of every task"
