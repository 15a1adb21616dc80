"""Whether what was written gives what the model gives.

checks = checks_of(wanted)                   # batches, and the model's answers
compare(checks[0], run(checks[0].inputs), "m.onnx")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlkit.errors import CheckpointError
from mtlkit.exporting.wanted import Wanted
from mtlkit.feature import PROBE

TOLERANCE = 1e-5
"""Of a difference, relative to the largest output of the task."""

# Rows and lengths, none of which the model is traced with. A batch of one is what is asked for most, and what tracing
# gets wrong first.
_BATCHES = ((1, PROBE + 32), (5, PROBE + 64))


@dataclass(frozen=True)
class Check:
    """Inputs by name, and what the model makes of them, by task."""

    inputs: dict[str, Tensor]
    answers: dict[str, Tensor]


def checks_of(wanted: Wanted) -> list[Check]:
    """The batches to check on."""
    batches = [wanted.examples(rows, length) for rows, length in _BATCHES]
    return [Check(x, wanted.answers(x)) for x in batches]


def compare(check: Check, found: Mapping[str, Tensor], path: str) -> None:
    """Refuse a file whose outputs are not the model's.

    Raises:
        CheckpointError: they are not.
    """
    rows = len(next(iter(check.inputs.values())))
    for task, expected in check.answers.items():
        mine = found[task]
        if mine.shape != expected.shape:
            what = f"has the shape {list(mine.shape)}, not {list(expected.shape)}"
        elif (far := distance(mine, expected)) > TOLERANCE:
            what = f"differs by {far:.1e} of its size, expected {TOLERANCE:.0e} at most"
        else:
            continue
        raise CheckpointError(
            f"{path}: is not written: on {rows} rows the output of task {task!r} {what}. An encoder or head may do "
            "something else when it is traced, or this output may cancel out to rounding. Try the other format, "
            "or export the other tasks with tasks=[...]"
        )


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest expected value. What is not finite must be the same."""
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite) or not torch.equal(
        found[~finite].nan_to_num(), expected[~finite].nan_to_num()
    ):
        return torch.inf
    differences, size = (found - expected)[finite].abs(), expected[finite].abs()
    largest = float(differences.max()) if differences.numel() else 0.0
    return largest / max(float(size.max()), torch.finfo(torch.float32).tiny) if largest else 0.0
