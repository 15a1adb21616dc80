"""`config`: the direction that makes the same angle with every task's gradient.

{"type": "config", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit.balancer._weighting import WeightingBalancer, rows_like
from mtlkit.balancing import At
from mtlkit.option import Positive


class ConFIG(WeightingBalancer):
    """Conflict-free inverse gradients.

    "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", Liu et al., ICLR 2025, equation 2.

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
        from torchjd.aggregation import ConFIG

        super().__init__(tasks, ConFIG(), at=at, preference=preference)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        # The result lies in the span of the rows. Of the rows themselves, millions of values long, a pseudo-inverse in
        # float32 takes every singular value for zero.
        alike = rows_like(gramian)
        self._prefer(tasks, alike)
        # TorchJD has no weighting for it, only what makes a gradient of rows.
        return self._weighting(alike) @ torch.linalg.pinv(alike)
