"""Which tasks are not shown to be learned: a constant prediction, the same for every example, is as good.

not_learned(found)              # {"ink": ["mlp/hard/sum", "rnn/hard/sum"]}
learned_alone(found)            # the same result without the tasks that no variant is shown to have learned
[*told_not_learned(found)]      # ["In ink mlp/hard/sum is not shown to be better than a constant prediction, ..."]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from mtlkit.bench.findings import Findings
from mtlkit.bench.statistics import Estimate
from mtlkit.bench.wording import MOST_NAMES, counted, figure, isolated, some


def not_learned(found: Findings) -> dict[str, list[str]]:
    """Of each task the variants whose interval, or only figure, is not on the better side of the constant's score.

    Tasks are left out that all have learned, or of which the constant or the better direction is not known.
    """
    unlearned = {}
    for task, measure in found.result.measures.items():
        constant, higher = found.result.constant_of(task), measure.higher_is_better
        if constant is None or higher is None:
            continue
        names = [row.variant.name for row in found.rows if not _is_better(row.tasks[task].estimate, constant, higher)]
        if names:
            unlearned[task] = names
    return unlearned


def learned_alone(found: Findings) -> Findings | None:
    """What the result says without the tasks that no variant is shown to have learned; None without such, or others.

    A gain in noise counts for as much as any other in a mean over tasks.
    """
    unlearned = not_learned(found)
    nobody = {task for task, names in unlearned.items() if len(names) == len(found.rows)}
    rest = {task: measure for task, measure in found.result.measures.items() if task not in nobody}
    return Findings.of(replace(found.result, measures=rest)) if nobody and rest else None


def told_not_learned(found: Findings) -> Iterator[str]:
    """The same in words: a score looks like one even where every example got the same prediction."""
    unlearned = not_learned(found)
    for task, names in [*unlearned.items()][:MOST_NAMES]:
        constant = figure(found.result.constant_of(task), found.decimals(task))
        who = f"{some(names)} {'is' if len(names) == 1 else 'are'} not"
        who = "no variant is" if len(names) == len(found.rows) > 1 else who
        like = f"a constant prediction, which has {found.result.measures[task].metric} {constant}"
        yield f"In {isolated(task)} {who} shown to be better than {like}."
    if (more := len(unlearned) - MOST_NAMES) > 0:
        yield f"The same is true of some variants in {counted(more, 'more task')}."


def _is_better(one: Estimate, constant: float, higher: bool) -> bool:
    """Whether it is, or nothing is known of it."""
    lead = one.mean - constant if higher else constant - one.mean
    return not math.isfinite(lead) or lead > (one.half or 0.0)
