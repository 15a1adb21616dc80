"""Relative gains: how much better one is than another in the mean over tasks, whatever the tasks' units.

    gain = relative_gain(scores, baseline, higher)      # delta-m of Maninis et al., by seed
    gain_over(gain)                                     # is it above 0? A `Difference`, with its interval and p
    gain_over(gain, relative_gain(others, baseline, higher))
    gain_over(standard_difference(scores, others, higher))      # of two that have no baseline in common

Scores are by task and seed. A gain that is undefined says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, variance

from mtlkit.bench.statistics import ROUNDING, Difference, Scores, difference
from mtlkit.errors import shown

_NO_DIRECTION = "of no task it is known which direction is better"


@dataclass(frozen=True)
class Gain:
    """The mean over tasks of relative differences of scores.

    Attributes:
        by_seed: of each seed that has all figures; empty where it is undefined.
        left_out: tasks of which nobody knows which direction is better.
        why: why it is undefined, or "".
        resolution: what it may owe to the rounding of the scores, which are larger than their differences.
    """

    by_seed: dict[int, float]
    left_out: tuple[str, ...] = ()
    why: str = ""
    resolution: float = 0.0


def relative_gain(
    scores: Mapping[str, Scores], baseline: Mapping[str, Scores], higher: Mapping[str, bool | None]
) -> Gain:
    """Delta-m (Maninis et al. 2019; Vandenhende et al. 2021): the mean over tasks of the relative gain, by seed.

    Of a task it is (M - B) / |mean of B over seeds|, with its sign turned where lower is better. The division is by the
    mean so that the mean over seeds is the gain of the means, and by its size so that a negative score may improve. It
    is undefined where the baseline is 0 or its sign changes over seeds: then nothing is relative to it.

    Args:
        scores, baseline: by task and seed.
        higher: by task, whether higher is better; None where nobody knows, which leaves the task out.
    """
    tasks = [task for task, direction in higher.items() if direction is not None]
    left_out = tuple(task for task in higher if task not in tasks)
    if not tasks:
        return Gain({}, left_out, _NO_DIRECTION)
    for task in tasks:
        base = [*baseline.get(task, {}).values()]
        if not base:
            return Gain({}, left_out, f"the baseline of {shown(task)} has no figure")
        if not all(map(math.isfinite, base)):
            return Gain({}, left_out, f"the baseline of {shown(task)} is undefined")
        if min(base) <= 0 <= max(base):
            return Gain({}, left_out, f"the baseline of {shown(task)} is 0 or changes its sign")
    seeds = sorted(set.intersection(*({*scores.get(task, {})} & {*baseline[task]} for task in tasks)))
    by_seed = {
        # No fmean: of gains too large in both directions it would raise.
        seed: sum(
            (1 if higher[task] else -1)
            * (scores[task][seed] - baseline[task][seed])
            / abs(fmean(baseline[task].values()))
            for task in tasks
        )
        / len(tasks)
        for seed in seeds
    }
    if not seeds:
        return Gain({}, left_out, "no seed has figures of all tasks")
    if not all(map(math.isfinite, by_seed.values())):
        return Gain({}, left_out, "a figure is undefined, or too large beside the baseline")
    sizes = {task: max(map(abs, [*(scores[task][seed] for seed in seeds), *baseline[task].values()])) for task in tasks}
    resolution = ROUNDING * fmean(sizes[task] / abs(fmean(baseline[task].values())) for task in tasks)
    return Gain(by_seed, left_out, resolution=resolution)


def standard_difference(
    mine: Mapping[str, Scores], other: Mapping[str, Scores], higher: Mapping[str, bool | None]
) -> Gain:
    """How much better one is than another in standard deviations over seeds: the mean over tasks, by seed.

    Of a task it is (M - O) / s with its sign turned where lower is better, where s is the root of the mean of both
    variances over seeds (Cohen's d). So tasks count alike, whatever their units and however near 0 their scores are.

    Args:
        mine, other: by task and seed.
        higher: as in `relative_gain`.
    """
    tasks = [task for task, direction in higher.items() if direction is not None]
    left_out = tuple(task for task in higher if task not in tasks)
    if not tasks:
        return Gain({}, left_out, _NO_DIRECTION)
    seeds = sorted(set.intersection(*({*side.get(task, {})} for task in tasks for side in (mine, other))))
    if len(seeds) < 2:
        return Gain({}, left_out, "one seed is too few" if seeds else "no common seed")
    scales: dict[str, float] = {}
    resolutions = []
    for task in tasks:
        figures = [[side[task][seed] for seed in seeds] for side in (mine, other)]
        size = max(abs(value) for values in figures for value in values)
        if not math.isfinite(sum(map(sum, figures))):
            return Gain({}, left_out, f"a score of {shown(task)} is undefined")
        scales[task] = math.sqrt(fmean(map(variance, figures)))
        if scales[task] <= ROUNDING * size:
            if abs(fmean(figures[0]) - fmean(figures[1])) > ROUNDING * size:
                return Gain({}, left_out, f"the scores of {shown(task)} do not vary over seeds")
            scales[task] = math.inf  # of two that are the same the difference is 0
        resolutions.append(ROUNDING * size / scales[task])
    signs = {task: 1 if higher[task] else -1 for task in tasks}
    by_seed = {
        seed: fmean(signs[task] * (mine[task][seed] - other[task][seed]) / scales[task] for task in tasks)
        for seed in seeds
    }
    return Gain(by_seed, left_out, resolution=fmean(resolutions))


def gain_over(mine: Gain, other: Gain | None = None) -> Difference:
    """How much larger a gain is than another over the same baseline, or than 0."""
    for gain in (mine, other):
        if gain is not None and not gain.by_seed:
            return Difference(math.nan, None, None, "", 0, gain.why)
    if other is None:
        other = Gain(dict.fromkeys(mine.by_seed, 0.0))
    return difference(mine.by_seed, other.by_seed, True, max(mine.resolution, other.resolution))
