"""`aligned_mtl`: the tasks' gradients made orthogonal, then combined.

{"type": "aligned_mtl", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At
from mtlkit.option import Positive


class AlignedMTL(WeightingBalancer):
    """Gradients made orthogonal and of one length before they are combined.

    "Independent Component Alignment for Multi-Task Learning", Senushkin et al., CVPR 2023, section 4.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        preference: how much each task counts, 1 where none is given. Only ratios count.
        scale_mode: which of the singular values of the gradients becomes the length of all.

    Raises:
        ValueError: `preference` names a task that is none.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        preference: dict[str, Positive] | None = None,
        scale_mode: Literal["min", "median", "rmse"] = "min",
    ) -> None:
        from torchjd.aggregation import AlignedMTLWeighting

        super().__init__(tasks, AlignedMTLWeighting(scale_mode=scale_mode), at=at, preference=preference)
