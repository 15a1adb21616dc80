"""Many heads on one small trunk, beside the loop that runs one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.speed.loops import BEST, ORIGINAL, compared
from benchmarks.speed.measure import Case, Row, Setting, measured
from benchmarks.speed.problem import Problem

ROWS, MISSING = 2_048, 0.2
# Of linear heads under squared errors; other losses take longer than the heads.
TARGETS = {10: 1 / 2.5, 100: 1 / 15, 1000: 1 / 30}
WITH_MISSING = 1.3
KINDS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"outputs": 3, "loss": "cross_entropy"},
    "bce": {"outputs": 3, "loss": "bce"},
    "mlp heads": {"outputs": 3, "head": {"type": "mlp", "hidden": [16]}},
}
_PEERS = {"loop": ORIGINAL, "plain torch at its best": BEST}


def rows(setting: Setting) -> Iterator[Row]:
    for case in _cases(setting.device):
        yield from measured("heads", case, setting)


def _cases(device: str) -> Iterator[Case]:
    for tasks, target in TARGETS.items():
        whole = Problem(spec([{"outputs": 3}] * tasks), ROWS, device=device)
        yield compared(f"{tasks:,} heads", whole, _PEERS, {"loop": target})
        yield with_missing(f"{tasks:,} heads, 20 % NaN", whole)
    for name, task in KINDS.items():
        whole = Problem(spec([task] * 100), ROWS, device=device)
        yield compared(f"100 heads, {name}", whole, _PEERS, {})
        yield with_missing(f"100 heads, {name}, 20 % missing", whole)
    uneven = Problem(spec([{"outputs": 1 + i % 8} for i in range(100)]), ROWS, device=device)
    yield compared("100 heads of 1 to 8 outputs", uneven, _PEERS, {})


def with_missing(name: str, whole: Problem) -> Case:
    """The same with some labels missing, beside the hand-written loops with masks and mtlkit with all labels."""
    problem = Problem(whole.spec, whole.rows, MISSING, whole.device)
    case = compared(name, problem, _PEERS, {"mtlkit, all labels": WITH_MISSING})
    sides = {**case.sides, "mtlkit, all labels": whole.fitted}
    return replace(case, sides=sides, fits=("mtlkit", "mtlkit, all labels"))


def spec(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    named = {f"t{i}": task for i, task in enumerate(tasks)}
    return {"input": [10], "encoder": {"type": "linear", "features": 20}, "tasks": named}
