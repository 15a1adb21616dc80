"""`mgda`: the shortest convex combination of the tasks' gradients.

{"type": "mgda", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import Count, NotNegative


class MGDA(GramianBalancer):
    """Multiple gradient descent: the shortest vector in the convex hull of the gradients.

    "Multi-Task Learning as Multi-Objective Optimization", Sener and Koltun, NeurIPS 2018, algorithm 2.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        epsilon: the change of the weights below which the search ends.
        max_iters: the most iterations of the search.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        epsilon: NotNegative = 0.001,
        max_iters: Count = 100,
    ) -> None:
        from torchjd.aggregation import MGDAWeighting

        super().__init__(tasks, at)
        self._weighting = MGDAWeighting(epsilon=epsilon, max_iters=max_iters)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return self._weighting(gramian)
