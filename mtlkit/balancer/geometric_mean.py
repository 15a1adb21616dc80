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
        from torchjd.scalarization import GeometricMean

        return GeometricMean()(losses.clamp_min(torch.finfo(losses.dtype).tiny))
