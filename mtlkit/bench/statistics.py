"""What figures of a few seeds say: intervals, paired comparisons, ranks and the Pareto front.

    estimate([0.98, 0.99, 0.97])                    # 0.98 ± 0.025: the mean and its 95 % interval
    scores = {"a": {0: 0.91, 1: 0.93, 2: 0.92}, "b": {0: 0.90, 1: 0.91, 2: 0.91}}      # by seed
    compare(scores, "a", higher=True)["b"]          # how much better "a" is, with its interval and p
    front({"a": (0.92, 10.0), "b": (0.91, 12.0)})   # ["a"]: whom no other beats

Scores of one seed belong together: its runs saw the same data in the same order. A figure that is NaN is not averaged
away; what depends on it is unknown, and says why.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, stdev
from typing import Any

import numpy as np

from mtlkit.data.extra import bench_extra

LEVEL = 0.05
"""A difference is shown where p is below this; intervals hold 1 - LEVEL."""

ROUNDING = 1e-6
"""Figures of a metric come in single precision: what spreads less than this, relative to them, does not spread."""

# With fewer pairs a test of normality sees nothing; with this p it is beyond doubt.
_ENOUGH_FOR_NORMALITY, _NOT_NORMAL = 8, 0.01
# Tables that tell how good the best of alike ones looks: then 0.05 is known to 0.002.
_TABLES = 10_000
# More tasks would change p by less than that.
_MOST_TASKS = 8
# All flips of so many signs are tried; of more, as many at random.
_MOST_SIGNS = 14

Scores = Mapping[int, float]
"""A figure by seed."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: NaN where a figure is undefined or there is none.
        half: half the width of the 95 % interval of Student's t around it; None of one seed, or of NaN.
        seeds: how many.
    """

    mean: float
    half: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """How much better one is than another, on the same seeds.

    Attributes:
        gain: the mean difference, above 0 where the first is better; NaN where it is unknown.
        half: half the width of its 95 % interval by Student's t, of this comparison alone; None where there is none.
        p: two-sided, corrected for the number of comparisons; None where nothing can be tested.
        test: "t", or "sign flips" where the assumptions of t fail; "" where nothing can be tested.
        seeds: how many pairs.
        why: why nothing can be tested, or "".
    """

    gain: float
    half: float | None
    p: float | None
    test: str
    seeds: int
    why: str = ""

    @property
    def shown(self) -> bool:
        """Whether the two are shown to differ."""
        return self.p is not None and self.p < LEVEL


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of some figures with its 95 % interval, by Student's t."""
    if not values or not all(map(math.isfinite, values)):
        return Estimate(math.nan, None, len(values))
    return Estimate(fmean(values), _half(values), len(values))


def difference(mine: Scores, other: Scores, higher: bool, resolution: float = 0.0) -> Difference:
    """How much better `mine` is than `other`, on the seeds that both have: a paired t-test.

    Where its assumptions fail, all flips of the differences' signs are compared instead (Fisher's exact test), and
    there is no interval: where the differences don't spread at all, as of accuracies on few examples, and where of 8 or
    more the test of Shapiro and Wilk says with p < 0.01 that they are not normal. Of n pairs such a p is at least
    2 / 2^n.

    Args:
        mine, other: figures by seed.
        higher: whether higher is better.
        resolution: what differences may owe to rounding alone, of figures that were computed from larger ones; it is at
            least `ROUNDING` of the figures themselves.
    """
    seeds = sorted(mine.keys() & other.keys())
    figures = [*(mine[seed] for seed in seeds), *(other[seed] for seed in seeds)]
    if not seeds or not all(map(math.isfinite, figures)):
        return Difference(math.nan, None, None, "", len(seeds), "a figure is undefined" if seeds else "no common seed")
    sign = 1 if higher else -1
    floor = max(resolution, ROUNDING * max(map(abs, figures)))
    found = [sign * (mine[seed] - other[seed]) for seed in seeds]
    found = [0.0 if abs(d) <= floor else d for d in found]
    if len(found) < 2:
        return Difference(fmean(found), None, None, "", 1, "one seed is too few")
    if stdev(found) <= floor or _is_not_normal(found):
        return Difference(fmean(found), None, _flipped(found), "sign flips", len(found))
    t = abs(fmean(found)) / (stdev(found) / math.sqrt(len(found)))
    p = 2 * float(_special().stdtr(len(found) - 1, -t))
    return Difference(fmean(found), _half(found), p, "t", len(found))


def compare(scores: Mapping[str, Scores], reference: str, higher: bool) -> dict[str, Difference]:
    """How much better a reference is than each other one, where it was named before its figures were seen.

    p is corrected by Holm for the number of comparisons. Of one that was chosen for its figures, such as the `best`,
    `compare_chosen` knows more.
    """
    found = {name: difference(scores[reference], other, higher) for name, other in scores.items() if name != reference}
    return corrected(found)


def compare_chosen(
    names: Sequence[str], versus: Callable[[str, str], Difference], tasks: int = 1
) -> dict[str, Difference]:
    """How much better the first of some is than each other one, where it was chosen for its figures as the best.

    The best of many that are all alike seems better than most of them. So p is how often it would: the share of 10,000
    tables of as many alike with as many seeds, drawn from one normal distribution, whose best leads any other by as
    small a p (the single-step minP of Westfall and Young 1993). Corrected for its own comparisons alone, the best of 27
    that are alike would be shown to be better than another in 17 of 100 benches of five seeds.

    Args:
        names: the chosen one first.
        versus: how much better one is than another.
        tasks: of how many it is the mean, where each is in standard deviations of the two over their seeds. What so few
            seeds say of these makes p too small, in such tables as in the bench.
    """
    found = {name: versus(names[0], name) for name in names[1:]}
    tested = [one for one in found.values() if one.p is not None]
    if not tested or (len(tested) == tasks == 1):
        return found
    luck = _luck(1 + len(tested), max(one.seeds for one in tested), min(tasks, _MOST_TASKS))
    return {name: one if one.p is None else replace(one, p=_share(luck, one.p)) for name, one in found.items()}


def corrected(found: Mapping[str, Difference]) -> dict[str, Difference]:
    """The same with every p corrected for the number of tests among them, by Holm."""
    tested = {name: one.p for name, one in found.items() if one.p is not None}
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    return {name: replace(one, p=adjusted.get(name)) for name, one in found.items()}


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction (1979): the smallest p times their number, the next times one less, never falling, to 1."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def best(scores: Mapping[str, Scores], higher: bool) -> list[str]:
    """Those with the best mean, of those with the most seeds and no undefined figure; empty where there is none.

    Several where their means differ by no more than rounding.
    """
    means = {name: estimate([*by_seed.values()]) for name, by_seed in scores.items()}
    known = {name: one for name, one in means.items() if math.isfinite(one.mean)}
    most = max((one.seeds for one in known.values()), default=0)
    full = {name: one.mean for name, one in known.items() if one.seeds == most}
    top = (max if higher else min)(full.values(), default=math.nan)
    return [name for name, mean in full.items() if abs(mean - top) <= ROUNDING * abs(top)]


def mean_rank(values: Mapping[str, Mapping[str, float]], higher: Mapping[str, bool | None]) -> dict[str, float]:
    """The mean over tasks of the rank, 1 the best and ties averaged, of those with a figure of every task.

    Args:
        values: by task and name.
        higher: by task, whether higher is better; None where nobody knows, which leaves the task out.
    """
    tasks = [task for task in values if higher[task] is not None]
    names = [name for name in (values[tasks[0]] if tasks else ()) if all(_is_known(values[t], name) for t in tasks)]
    ranks: dict[str, list[float]] = {name: [] for name in names}
    for task in tasks:
        sign = 1 if higher[task] else -1
        signed = {name: sign * values[task][name] for name in names}
        for name, value in signed.items():
            better = sum(other > value for other in signed.values())
            equal = sum(other == value for other in signed.values())
            ranks[name].append(better + (equal + 1) / 2)
    return {name: fmean(found) for name, found in ranks.items()}


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The Pareto front, the cheapest first: no other is at least as good in quality and cost and better in one.

    Args:
        points: quality, of which more is better, and cost, of which less is.
    """
    known = {name: point for name, point in points.items() if all(map(math.isfinite, point))}

    def dominated(quality: float, cost: float) -> bool:
        return any(q >= quality and c <= cost and (q, c) != (quality, cost) for q, c in known.values())

    return sorted((name for name, point in known.items() if not dominated(*point)), key=lambda name: known[name][1])


def _half(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return float(_special().stdtrit(len(values) - 1, 1 - LEVEL / 2)) * stdev(values) / math.sqrt(len(values))


def _is_known(values: Mapping[str, float], name: str) -> bool:
    return math.isfinite(values.get(name, math.nan))


def _is_not_normal(found: Sequence[float]) -> bool:
    return len(found) >= _ENOUGH_FOR_NORMALITY and _scipy("stats").shapiro(found).pvalue < _NOT_NORMAL


def _flipped(found: Sequence[float]) -> float:
    """The share of flips of signs whose sum is at least as far from 0 as that of the differences as they are."""
    if len(found) <= _MOST_SIGNS:
        bits = np.arange(2 ** len(found))[:, None] >> np.arange(len(found)) & 1  # [2^n, n]
        sums = (1 - 2 * bits) @ np.asarray(found)
    else:
        flips = np.random.default_rng(0).choice((-1, 1), (2**_MOST_SIGNS - 1, len(found)))
        sums = np.append(flips @ np.asarray(found), sum(found))
    return float(np.mean(np.abs(sums) >= abs(sum(found)) * (1 - 1e-9)))


@cache
def _luck(names: int, seeds: int, tasks: int) -> list[float]:
    """Of each of many tables of alike ones the smallest p of its best against another, in order."""
    random, some = np.random.default_rng(0), 500
    largest: list[float] = []
    for _ in range(_TABLES // some):
        scores = random.standard_normal((some, names, tasks, seeds))
        best = np.arange(some), scores.mean((2, 3)).argmax(1)
        variances = scores.var(3, ddof=1)  # [500, names, tasks]
        scales = np.sqrt((variances[best][:, None] + variances) / 2)
        leads = ((scores[best][:, None] - scores) / scales[..., None]).mean(2)  # [500, names, seeds]
        spread = leads.std(2, ddof=1)
        spread[best] = math.inf  # of the best from itself
        largest += (leads.mean(2) / spread).max(1).tolist()
    t = math.sqrt(seeds) * np.asarray(largest)
    return sorted((2 * _special().stdtr(seeds - 1, -t)).tolist())


def _share(luck: Sequence[float], p: float) -> float:
    """The share of these that are no larger, p among them; no less than p, which it can't be but by chance."""
    return max(p, (bisect_right(luck, p) + 1) / (len(luck) + 1))


def _special() -> Any:
    """Student's t without the hundredfold time that the distributions of `scipy.stats` take for each figure."""
    return _scipy("special")


def _scipy(part: str) -> Any:
    return bench_extra(f"scipy.{part}", "the comparison of what a bench found")
