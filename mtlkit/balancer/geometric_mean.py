"""`geometric_mean`: the geometric mean of the losses.

{"type": "geometric_mean"}
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtlkit.balancing import LossBalancer


class GeometricMean(LossBalancer):
    """The geometric loss strategy (GLS): every task's loss falls at the same relative rate, whatever its scale.

    "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task Learning", Chennupati et
    al., CVPR Workshops 2019. A loss of 0 has no gradient here: it counts as the smallest positive number.
    """

    nonnegative = True

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """The geometric mean of `losses` [k].

        Raises:
            ValueError: a loss is negative.
        """
        from torchjd.scalarization import GeometricMean

        negative = [f"{task!r} {loss:.4g}" for task, loss in zip(tasks, losses.tolist(), strict=True) if loss < 0]
        if negative:
            raise ValueError(
                f"balancer 'geometric_mean': found a negative loss, of {', '.join(negative)}; the geometric mean exists"
                " only for losses of 0 and above. Use another loss for the task, or another balancer"
            )
        return GeometricMean()(losses.clamp_min(torch.finfo(losses.dtype).tiny))
