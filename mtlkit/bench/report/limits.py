"""What limits a result, in words: few seeds, few test examples, what failed or is undefined, times that were disturbed.

[*limits_of(found)]      # ["3 seeds show large differences only; more seeds may show smaller ones.", ...]
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from mtlkit.bench.findings import Findings
from mtlkit.bench.result import Result
from mtlkit.bench.wording import counted, isolated, some

_FEW_SEEDS = 5
# Of n examples an accuracy of 50 %, the worst known, has a 95 % interval of 98 / sqrt(n) points to each side, 1.96
# standard errors: of 1000 these are 3.1.
_FEW_TESTED, _POINTS = 1000, 98
# So many times the median of a step, over a whole training, is no more its usual spread.
_SLOWED = 1.5


def limits_of(found: Findings) -> Iterator[str]:
    """A sentence for each thing that the figures can't show, or that is missing from them."""
    result = found.result
    if result.seeds == 1:
        yield "One seed: no difference can be shown."
    elif result.seeds < _FEW_SEEDS:
        more = f", all the more among {number} variants" if (number := len(result.compared)) > _FEW_SEEDS else ""
        yield f"{counted(result.seeds, 'seed')} show large differences only{more}; more seeds may show smaller ones."
    if (tested := result.tested_on) and tested < _FEW_TESTED:
        points = f"{_POINTS / math.sqrt(tested):.0f}"
        same = f"Every run is scored on the same {counted(tested, 'test example')}, whose own sampling error is in no"
        yield f"{same} interval: for that alone an accuracy may be off by up to {points} points."
    left_out = [task for task, measure in result.measures.items() if measure.higher_is_better is None]
    if left_out:
        yield f"Left out of gains and ranks, since nobody knows which direction is better: {some(left_out)}."
    without = [task for task in result.measures if result.constant and result.constant_of(task) is None]
    if without:
        yield f"There is no constant prediction to compare with in {some(without)}."
    unknown = [row for row in found.rows if row.gain.why and row.finished and not row.variant.is_baseline]
    if unknown and found.has_baselines:
        yield f"Δm is undefined for {some([row.variant.name for row in unknown])}: {unknown[0].gain.why}."
    if result.failed:
        yield f"{len(result.failed)} of {counted(len(result.runs), 'run')} failed, and their figures are missing."
    if found.fewer:
        yield f"Not taken for the best, since others have more seeds: {some(found.fewer)}."
    if result.unwatched:
        name, why = next(iter(result.unwatched.items()))
        yield f"The tasks' gradients under {isolated(name)} are not known, since that run failed: {isolated(why)}."
    if found.side_by_side > 1:
        yield f"Times were taken with up to {found.side_by_side} runs side by side, which slow one another."
    if slowed := _slowed(result):
        why = "by other load on the machine or a slow start; the time of a step tells more"
        usual = f"{_SLOWED} times what {'its' if len(slowed) == 1 else 'their'} steps take at the median"
        yield f"Training with {some(slowed)} took more than {usual}, {why}."


def _slowed(result: Result) -> list[str]:
    """The variants whose training took much longer than all of its steps at the median time of one."""
    names = []
    for name in result.variants:
        timed = [
            (run.seconds, run.steps * run.seconds_per_step)
            for run in result.runs_of(name)
            if run.seconds is not None and run.seconds_per_step is not None
        ]
        if sum(took for took, _ in timed) > _SLOWED * sum(usual for _, usual in timed):
            names.append(name)
    return names
