"""Whether what was written gives what the model gives.

checks = checks_of(wanted)                         # batches, and the model's answers
compare(checks, run, "m.onnx")
shortest(wanted, run, checks, "m.onnx")            # 1: sequences of any length go in
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtlkit.errors import CheckpointError
from mtlkit.exporting.format import Run
from mtlkit.exporting.wanted import Wanted

TOLERANCE = 1e-5
"""Of a difference, relative to the largest output of the task."""

# Rows, none of which the model is traced with. A batch of one is what is asked for most, and what tracing gets wrong
# first.
_ROWS = (1, 5)
_FEW = 2


@dataclass(frozen=True)
class Check:
    """Inputs by name, what the model makes of them, by task, and the mean of each task in the units of a table.

    Such an answer is as large as it is far from the mean, which may be far above all differences.
    """

    inputs: dict[str, Tensor]
    answers: dict[str, Tensor]
    means: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(wanted: Wanted, inputs: dict[str, Tensor]) -> Check:
        """The model's own answers to these inputs."""
        return Check(inputs, wanted.answers(inputs), {task: units.mean for task, units in wanted.numbers.items()})

    def size(self, task: str) -> float:
        """Of a task's answers, the largest."""
        return _largest(self.answers[task] - self.means.get(task, 0.0))


def checks_of(wanted: Wanted) -> list[Check]:
    """The batches to check on, of other lengths than the model is traced with."""
    _, *lengths = wanted.lengths
    return [Check.of(wanted, wanted.examples(*sizes)) for sizes in zip(_ROWS, lengths, strict=True)]


def compare(checks: Sequence[Check], run: Run, path: str) -> None:
    """Refuse a file whose outputs are not the model's.

    Raises:
        CheckpointError: they are not.
    """
    for check in checks:
        _compare(check, run(check.inputs), checks, path)


def shortest(wanted: Wanted, run: Run, checks: Sequence[Check], path: str) -> int:
    """The least length of the axes of any length that a file takes, where the model takes less; else 1.

    Torch may trace as if no axis, of an input or of what a layer makes of it, had one place.

    Raises:
        CheckpointError: on short inputs its outputs are not the model's.
    """
    least = 1
    for length in range(1, wanted.lengths[0]) if wanted.has_free_length else ():
        x = wanted.examples(_FEW, length)
        try:
            check = Check.of(wanted, x)
        except Exception:  # noqa: BLE001  # whatever parts raise of inputs that are too short for them
            continue
        try:
            found = run(x)
        except Exception:  # noqa: BLE001  # as a file does that is made for longer ones
            least = length + 1
            continue
        _compare(check, found, [*checks, check], path)
        if length > 1:
            break
    return least


def _compare(check: Check, found: Mapping[str, Tensor], checks: Sequence[Check], path: str) -> None:
    for task, expected in check.answers.items():
        mine = found[task]
        # In all of the checks: the few outputs of one may happen to lie near zero, where rounding is all there is.
        size = max(one.size(task) for one in checks)
        if mine.shape != expected.shape:
            what = f"has the shape {list(mine.shape)}, not {list(expected.shape)}"
        elif (far := distance(mine, expected, size)) > TOLERANCE:
            what = f"differs by {far:.1e} of its size, expected {TOLERANCE:.0e} at most"
        else:
            continue
        inputs = ", ".join(str(list(x.shape)) for x in check.inputs.values())
        raise CheckpointError(
            f"{path}: is not written: on inputs {inputs} the output of task {task!r} {what}. An encoder or head may do "
            "something else when it is traced, or at some length, or this output may cancel out to rounding. Try the "
            "other format, length=N where an axis has any length, or the other tasks with tasks=[...]"
        )


def distance(found: Tensor, expected: Tensor, size: float) -> float:
    """The largest difference, in units of `size`. What is not finite must be the same."""
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite) or not torch.equal(
        found[~finite].nan_to_num(), expected[~finite].nan_to_num()
    ):
        return torch.inf
    largest = _largest(found[finite] - expected[finite])
    return largest / max(size, torch.finfo(torch.float32).tiny) if largest else 0.0


def _largest(values: Tensor) -> float:
    """The largest finite one, without its sign; 0 where there is none."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
