"""`pbi`: the losses along a preferred direction, and a penalty for leaving it.

{"type": "pbi", "theta": 5.0, "preference": {"depth": 2.0}, "reference": {"depth": 0.3}}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import LossBalancer
from mtlkit.option import NotNegative, Positive


class PBI(LossBalancer):
    """Penalty-based boundary intersection.

    "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition", Zhang and Li, IEEE Transactions on
    Evolutionary Computation 2007, section II.C. A task that is far below the direction gets a negative weight.

    Args:
        tasks: all tasks.
        theta: the penalty on the distance to the direction.
        preference: the direction, by task, 1 where none is given. Only ratios count.
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
        theta: NotNegative = 5.0,
        preference: dict[str, Positive] | None = None,
        reference: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.theta = theta
        self.register_buffer("_preference", self.by_task(preference, "preference", 1.0), persistent=False)
        self.register_buffer("_reference", self.by_task(reference, "reference", 0.0), persistent=False)

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import PBI

        rows = self.rows(tasks)
        # In float64, since the squares of large losses leave what float32 can hold.
        pbi = PBI(self.theta, self._preference[rows].double(), self._reference[rows].double())
        return pbi(losses.double()).to(losses.dtype)
