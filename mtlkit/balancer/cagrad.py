"""`cagrad`: the gradient near the mean that helps the worst task most.

{"type": "cagrad", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At
from mtlkit.option import NotNegative, Positive


class CAGrad(WeightingBalancer):
    """Conflict-averse: near the mean gradient, the one that helps the worst task most.

    "Conflict-Averse Gradient Descent for Multi-task Learning", Liu et al., NeurIPS 2021, algorithm 1. Needs the extra
    `solvers`.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        c: how far it may be from the mean, relative to the mean's length; 0 is the mean.
        norm_eps: where the worst combination of the gradients is shorter, relative to them, the tasks count as balanced
            and what they share stays as it is. A task with a gradient of 0, or thousands of times shorter than the
            others', has that effect.
    """

    def __init__(
        self, tasks: Sequence[str], *, at: At = "parameters", c: NotNegative = 0.5, norm_eps: Positive = 1e-4
    ) -> None:
        from torchjd.aggregation import CAGradWeighting

        super().__init__(tasks, CAGradWeighting(c, norm_eps), at=at)
