"""`mgda`: the shortest convex combination of the tasks' gradients.

{"type": "mgda", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At
from mtlkit.option import Count, Positive


class MGDA(WeightingBalancer):
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
        epsilon: Positive = 0.001,
        max_iters: Count = 100,
    ) -> None:
        from torchjd.aggregation import MGDAWeighting

        super().__init__(tasks, MGDAWeighting(epsilon=epsilon, max_iters=max_iters), at=at)
