"""A suggestion in words: who was put together, how alike they are, and why there are so many groups."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtlkit.suggest.group import Choice
from mtlkit.suggest.measure import RUNS, Measured

_PAIRS = 3  # of the most alike, and of those most in conflict
_NEUTRAL = 0.05  # what is nearer to 0 is called neither help nor conflict


def reason(measured: Measured, choice: Choice) -> str:
    """Lines of text without an end of line after the last."""
    tasks, alike = measured.tasks, measured.alike
    count = len(choice.groups)
    lines = [_head(count, len(tasks)), f"Chosen: {choice.why}.", _how(measured), ""]
    if count > 1:
        lines += [_group(number, rows, measured) for number, rows in enumerate(choice.groups, 1)]
    else:
        lines.append(f"All tasks: {_inside(alike, choice.groups[0])}.")
    return "\n".join([*lines, "", *_strongest(tasks, alike), *_unknown(tasks, alike)])


def command(run_file: Path) -> str:
    """What trains it, as a shell takes it."""
    return f"mtlkit train {shlex.quote(str(run_file))}"


def _head(groups: int, tasks: int) -> str:
    if groups == 1:
        return f"One group: the {tasks} tasks stay on one encoder."
    return f"{groups} groups of {tasks} tasks: one encoder for all below, one for each group above."


def _how(measured: Measured) -> str:
    recorded = f"over {measured.records} steps of {RUNS} runs of hard sharing, of {measured.steps} steps in all"
    if measured.lookahead:
        return (
            f"Measured {recorded}: what a step of one task does to the loss of another. Numbers are means of both "
            "directions in units of the tasks' own steps: 1 as good as its own step, 0 no effect, below 0 harm."
        )
    return (
        f"Measured {recorded}: the mean cosine similarity of the tasks' gradients at the parameters that they share: 1 "
        "one direction, 0 unrelated, below 0 conflict."
    )


def _group(number: int, rows: Sequence[int], measured: Measured) -> str:
    others = [i for i in range(len(measured.tasks)) if i not in rows]
    across = _number(measured.alike[list(rows)][:, others])
    names = ", ".join(measured.tasks[i] for i in rows)
    inside = "alone" if len(rows) == 1 else _inside(measured.alike, rows)
    return f"Group {number}: {names}: {inside}, {across} with others."


def _inside(alike: Tensor, rows: Sequence[int]) -> str:
    first, second = torch.combinations(torch.tensor(rows), 2).T
    return f"{_number(alike[first, second])} among themselves"


def _number(values: Tensor) -> str:
    mean = float(values.nanmean())
    return f"{mean:+.2f}" if mean == mean else "not known"


def _strongest(tasks: Sequence[str], alike: Tensor) -> list[str]:
    """The pairs that help each other most, and those most in conflict, where there are any."""
    rows, columns = torch.triu_indices(len(tasks), len(tasks), 1)
    pairs = [*zip(alike[rows, columns].tolist(), rows.tolist(), columns.tolist(), strict=True)]
    helping = sorted((p for p in pairs if p[0] > _NEUTRAL), reverse=True)[:_PAIRS]
    harming = sorted(p for p in pairs if p[0] < -_NEUTRAL)[:_PAIRS]

    def written(what: str, found: Sequence[tuple[float, int, int]]) -> str:
        return f"{what}: {'; '.join(f'{tasks[i]} and {tasks[j]} {value:+.2f}' for value, i, j in found) or 'none'}."

    return [written("Most help", helping), written("Most conflict", harming)]


def _unknown(tasks: Sequence[str], alike: Tensor) -> list[str]:
    """What was never seen together, and how it was counted."""
    rows, columns = torch.triu_indices(len(tasks), len(tasks), 1)
    missing = alike[rows, columns].isnan()
    if not bool(missing.any()):
        return []
    first = f"{tasks[int(rows[missing][0])]} and {tasks[int(columns[missing][0])]}"
    more = f", and {int(missing.sum()) - 1} more pairs" if int(missing.sum()) > 1 else ""
    return [f"Not known, since they never had labels in one batch: {first}{more}; counted as the mean of the others."]
