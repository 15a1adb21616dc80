"""`sum`: the plain sum of the weighted losses, the default.

{"type": "sum"}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtlkit.balancing import Balancer, Step, total


class Sum(Balancer):
    """The gradient of the sum of the tasks' weighted losses."""

    joint = False
    fixed = True
    losses_alone = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self._one = torch.ones(())

    def backward(self, step: Step) -> None:
        step.backward(total(step.losses))
        tasks = tuple(step.losses)
        self._weighed(tasks, (self._one,) * len(tasks))
