"""`cosmos`: a weighted sum of the losses that rewards losses in the preferred proportion.

{"type": "cosmos", "lambda_": 1.0, "preference": {"depth": 2.0}}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import LossBalancer
from mtlkit.option import NotNegative, Positive


class COSMOS(LossBalancer):
    """The objective of COSMOS, for one fixed preference; the model isn't conditioned on it.

    "Scalable Pareto Front Approximation for Deep Multi-Objective Learning", Ruchte and Grabocka, ICDM 2021, equation 6.

    Args:
        tasks: all tasks.
        lambda_: how much the cosine between the losses and the preference counts.
        preference: the importance of each task, 1 where none is given. Only ratios count: those of the tasks in a batch
            are made to sum to 1, as in the paper.

    Raises:
        ValueError: `preference` names a task that is none.
    """

    _preference: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        lambda_: NotNegative = 1.0,
        preference: dict[str, Positive] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.lambda_ = lambda_
        self.register_buffer("_preference", self.by_task(preference, "preference", 1.0), persistent=False)

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import COSMOS

        # In float64, since the squares of large losses leave what float32 can hold.
        preference = self._preference[self.rows(tasks)].double()
        return COSMOS(self.lambda_, preference / preference.sum())(losses.double()).to(losses.dtype)
