"""`dualproj`: the mean of the tasks' gradients, projected so that it harms no task.

{"type": "dualproj", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At
from mtlkit.option import Positive


class DualProj(WeightingBalancer):
    """The preferred combination of the gradients, projected to where no task's loss grows.

    "Gradient Episodic Memory for Continual Learning", Lopez-Paz and Ranzato, NeurIPS 2017, equation 11.

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
        from torchjd.aggregation import DualProjWeighting

        super().__init__(tasks, DualProjWeighting(), at=at, preference=preference)
