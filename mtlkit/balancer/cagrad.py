"""`cagrad`: the gradient near the mean that helps the worst task most.

{"type": "cagrad", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import NotNegative


class CAGrad(GramianBalancer):
    """Conflict-averse: near the mean gradient, the one that helps the worst task most.

    "Conflict-Averse Gradient Descent for Multi-task Learning", Liu et al., NeurIPS 2021, algorithm 1. Needs the extra
    `solvers`.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        c: how far it may be from the mean, relative to the mean's length; 0 is the mean.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters", c: NotNegative = 0.5) -> None:
        from torchjd.aggregation import CAGradWeighting

        super().__init__(tasks, at)
        self._weighting = CAGradWeighting(c=c)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return self._weighting(gramian)
