"""`aligned_mtl`: the tasks' gradients made orthogonal, then combined.

{"type": "aligned_mtl", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mtlkit.balancing import At, GramianBalancer


class AlignedMTL(GramianBalancer):
    """Gradients made orthogonal and of one length before they are combined.

    "Independent Component Alignment for Multi-Task Learning", Senushkin et al., CVPR 2023, section 4.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        preference: how much each task counts; all the same if left out, 1 for a task that is not named.
        scale_mode: which of the singular values of the gradients becomes the length of all.

    Raises:
        ValueError: `preference` names a task that is none.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        preference: dict[str, float] | None = None,
        scale_mode: Literal["min", "median", "rmse"] = "min",
    ) -> None:
        from torchjd.aggregation import AlignedMTLWeighting

        super().__init__(tasks, at)
        self._weighting = AlignedMTLWeighting(scale_mode=scale_mode)
        self._preference = None if preference is None else self.by_task(preference, "preference", 1.0)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        if self._preference is not None:
            self._weighting.pref_vector = self._preference[self.rows(tasks)].to(gramian)
        return self._weighting(gramian)
