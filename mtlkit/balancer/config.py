"""`config`: the direction that makes the same angle with every task's gradient.

{"type": "config", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit.balancing import At, GramianBalancer


class ConFIG(GramianBalancer):
    """Conflict-free inverse gradients.

    "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", Liu et al., ICLR 2025, equation 2.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters") -> None:
        from torchjd.aggregation import ConFIG

        super().__init__(tasks, at)
        self._aggregator = ConFIG()

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        # The result lies in the span of the rows. Of the rows themselves, millions of values long, a pseudo-inverse in
        # float32 takes every singular value for zero; so it is made of k vectors [k] with the same inner products.
        values, vectors = torch.linalg.eigh(gramian)
        alike = vectors * values.clamp_min(0).sqrt()
        return self._aggregator(alike) @ torch.linalg.pinv(alike)
