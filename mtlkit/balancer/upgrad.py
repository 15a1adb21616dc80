"""`upgrad`: the mean of the tasks' gradients, each projected so that it harms no task.

{"type": "upgrad", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At
from mtlkit.option import Positive


class UPGrad(WeightingBalancer):
    """Unconflicting projection: the mean of the gradients, each projected to where no task's loss grows.

    "Jacobian Descent for Multi-Objective Optimization", Quinton and Rey, 2024, section 3.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        preference: how much each task counts, 1 where none is given. Only ratios count.

    Raises:
        ValueError: `preference` names a task that is none.
    """

    def __init__(
        self, tasks: Sequence[str], *, at: At = "parameters", preference: dict[str, Positive] | None = None
    ) -> None:
        from torchjd.aggregation import UPGradWeighting

        super().__init__(tasks, UPGradWeighting(), at=at, preference=preference)
