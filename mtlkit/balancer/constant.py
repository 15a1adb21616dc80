"""`constant`: the sum of the losses under fixed weights.

{"type": "constant", "weights": {"depth": 0.5}}     # 1 for every other task
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import LossBalancer
from mtlkit.option import NotNegative


class Constant(LossBalancer):
    """The sum of the losses, each under its own fixed weight.

    Args:
        tasks: all tasks.
        weights: the weight of each task's loss, 1 where none is given.

    Raises:
        ValueError: `weights` names a task that is none, or all are 0.
    """

    joint = False
    fixed = True
    _constants: Tensor

    def __init__(self, tasks: Sequence[str], *, weights: dict[str, NotNegative] | None = None) -> None:
        super().__init__(tasks)
        if weights and set(weights) == set(self.tasks) and not any(weights.values()):
            raise ValueError("weights are all 0, so that nothing would be trained")
        self.register_buffer("_constants", self.by_task(weights, "weights", 1.0), persistent=False)

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import Constant

        return Constant(self._constants[self.rows(tasks)])(losses)
