"""`gradvac`: gradients turned towards one another until they are as alike as they usually are.

{"type": "gradvac", "at": "features", "beta": 0.5}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import Fraction


class GradVac(GramianBalancer):
    """Gradient vaccine: where two tasks' gradients are less alike than on average, one is turned towards the other.

    "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual Models", Wang et
    al., ICLR 2021, algorithm 1. The order of the corrections is drawn at random. The average of a pair of tasks is that
    of the batches in which both have labels.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        beta: how much of a pair's average cosine similarity the newest batch makes up.
    """

    symmetric = False
    _similarity: Tensor

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters", beta: Fraction = 0.5) -> None:
        super().__init__(tasks, at=at)
        self.beta = beta
        self.register_buffer("_similarity", torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64))

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.aggregation import GradVacWeighting

        rows = self.rows(tasks)
        pairs = rows[:, None], rows
        weighting: Any = GradVacWeighting(beta=self.beta)
        # TorchJD keeps the averages of a fixed set of tasks, on the CPU: it is told those of the present ones.
        weighting._phi_t = self._similarity[pairs].cpu()
        weighting._state_key = len(tasks), gramian.dtype
        weights = weighting(gramian)
        # Averages of similarities after corrections, which a nearly parallel pair can make larger than any cosine.
        self._similarity[pairs] = weighting._phi_t.clamp(-1, 1).to(self._similarity)
        return weights
