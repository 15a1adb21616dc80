"""Which tasks are not shown to be learned: a constant prediction, the same for every example, is as good.

not_learned(found)      # {"ink": ["mlp/hard/sum", "rnn/hard/sum"]}
"""

from __future__ import annotations

import math

from mtlkit.bench.findings import Findings
from mtlkit.bench.statistics import Estimate


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


def _is_better(one: Estimate, constant: float, higher: bool) -> bool:
    """Whether it is, or nothing is known of it."""
    lead = one.mean - constant if higher else constant - one.mean
    return not math.isfinite(lead) or lead > (one.half or 0.0)
