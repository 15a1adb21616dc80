"""`stch`: a smooth maximum of the losses, so that the worst task leads.

{"type": "stch", "mu": 0.1, "preference": {"depth": 2.0}, "reference": {"depth": 0.3}}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import LossBalancer
from mtlkit.option import Positive


class STCH(LossBalancer):
    """Smooth Tchebycheff scalarization.

    "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", Lin et al., ICML 2024.

    Args:
        tasks: all tasks.
        mu: the smoothing; the smaller, the closer to the maximum.
        preference: the importance of each task, 1 where none is given. Only ratios count: those of the tasks in a batch
            are made to sum to 1, as in the paper.
        reference: the ideal loss of each task, 0 where none is given; losses count from there.

    Raises:
        ValueError: `preference` or `reference` names a task that is none.
    """

    _preference: Tensor
    _reference: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        mu: Positive = 0.1,
        preference: dict[str, Positive] | None = None,
        reference: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.mu = mu
        self.register_buffer("_preference", self.by_task(preference, "preference", 1.0), persistent=False)
        self.register_buffer("_reference", self.by_task(reference, "reference", 0.0), persistent=False)

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import STCH

        rows = self.rows(tasks)
        preference = self._preference[rows]
        return STCH(self.mu, preference / preference.sum(), self._reference[rows])(losses)
