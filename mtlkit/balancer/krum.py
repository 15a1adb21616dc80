"""`krum`: the task gradient that is nearest to the others.

{"type": "krum", "n_selected": 2}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import Count, NotNegativeCount


class Krum(GramianBalancer):
    """Krum, and Multi-Krum with more than one selected: the mean of the gradients whose neighbours are nearest.

    "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", Blanchard et al., NeurIPS 2017, section 4.
    Made for gradients that may be forged; a task that is unlike the others is left out. In a batch with fewer than
    `n_byzantine` + 3 tasks, or fewer than `n_selected`, it is the mean; so it always is for two tasks.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        n_byzantine: how many tasks may be outliers.
        n_selected: of how many gradients the mean is taken.

    Raises:
        ValueError: there are too few tasks for so many outliers, or to select from.
    """

    # Two gradients are equally near to one another: the first of them is taken.
    symmetric = False

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        n_byzantine: NotNegativeCount = 0,
        n_selected: Count = 1,
    ) -> None:
        from torchjd.aggregation import KrumWeighting

        super().__init__(tasks, at=at)
        self._weighting = KrumWeighting(n_byzantine, n_selected)
        self._fewest = max(n_byzantine + 3, n_selected)
        chosen = n_byzantine > 0 or n_selected > 1
        if chosen and 1 < len(self.tasks) < self._fewest:
            raise ValueError(
                f"n_byzantine = {n_byzantine} and n_selected = {n_selected} need at least {self._fewest} tasks, and "
                f"there are {len(self.tasks)}"
            )

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        if len(tasks) < self._fewest:
            return torch.full_like(gramian[0], 1 / len(tasks))
        return self._weighting(gramian)
