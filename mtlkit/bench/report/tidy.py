"""Every figure as a row of a CSV, for a notebook.

    csv_of(result)      # variant,trunk,sharing,balancer,task,seed,metric,value

A text that a spreadsheet would run as a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import math

from mtlkit.bench.result import Result
from mtlkit.bench.wording import CONSTANT

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_of(result: Result) -> str:
    """Every figure on test data as a row: variant, trunk, sharing, balancer, task, seed, metric, value.

    Of a baseline sharing and balancer are empty, of a constant prediction all but its figures. One that is undefined is
    empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["variant", "trunk", "sharing", "balancer", "task", "seed", "metric", "value"])
    for run in result.runs:
        variant = result.variants[run.variant]
        for task, scores in (run.test or {}).items():
            for metric, value in scores.items():
                names = (variant.name, variant.trunk, variant.sharing, variant.balancer, task)
                writer.writerow([*map(_text, names), run.seed, _text(metric), _number(value)])
    for task, scores in result.constant.items():
        for metric, value in scores.items():
            writer.writerow([CONSTANT, "", "", "", _text(task), "", _text(metric), _number(value)])
    return out.getvalue()


def _number(value: float | None) -> str:
    return repr(float(value)) if value is not None and math.isfinite(value) else ""


def _text(value: str | None) -> str:
    if value is None:
        return ""
    return f"'{value}" if value.startswith(_FORMULA) else value
