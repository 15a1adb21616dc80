"""`mgda`: the shortest convex combination of the tasks' gradients.

{"type": "mgda", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import Count, Positive


class MGDA(GramianBalancer):
    """Multiple gradient descent: the shortest vector in the convex hull of the gradients.

    "Multi-Task Learning as Multi-Objective Optimization", Sener and Koltun, NeurIPS 2018, algorithm 2.

    The weights are those of TorchJD's `MGDAWeighting`. The search takes up to a hundred rounds over a few numbers each;
    there each round makes a dozen tensors, and waits for a GPU.

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
        super().__init__(tasks, at=at)
        self.epsilon, self.max_iters = epsilon, max_iters

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        products = gramian.detach().double().cpu().numpy()
        weights = np.full(len(products), 1 / len(products))
        for _ in range(self.max_iters):
            with_each = products @ weights
            best = int(with_each.argmin())
            change = _line_search(products[best, best], with_each[best], weights @ with_each)
            weights *= 1 - change
            weights[best] += change
            if change < self.epsilon:
                break
        return torch.from_numpy(weights).to(gramian)


def _line_search(new: float, between: float, old: float) -> float:
    """How far to go from a vector towards another to be nearest to zero, by their squared lengths and inner product.

    Algorithm 1 of the paper.
    """
    if new <= between:
        return 1.0
    return 0.0 if old <= between else (old - between) / (old + new - 2 * between)
