"""`imtl_g`: the gradient that projects alike on every task's.

{"type": "imtl_g", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At


class IMTLG(WeightingBalancer):
    """Impartial: the gradient whose projections on the tasks' gradients are all the same.

    "Towards Impartial Multi-task Learning", Liu et al., ICLR 2021, equation 6.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters") -> None:
        from torchjd.aggregation import IMTLGWeighting

        super().__init__(tasks, IMTLGWeighting(), at=at)
