"""`sum`: the plain sum of the weighted losses, the default.

{"type": "sum"}
"""

from __future__ import annotations

from torch import Tensor

from mtlkit.balancing import LossBalancer, Step


class Sum(LossBalancer):
    """The gradient of the sum of the tasks' weighted losses."""

    joint = False

    def backward(self, step: Step) -> None:
        first, *others = step.losses.values()
        step.backward(sum(others, first))

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return losses.sum()
