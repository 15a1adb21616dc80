"""`mean`: the mean of the losses of the tasks that have a label in the batch.

{"type": "mean"}
"""

from __future__ import annotations

from torch import Tensor

from mtlkit.balancing import LossBalancer


class Mean(LossBalancer):
    """The mean of the losses: as `sum`, but steps don't grow with the number of tasks."""

    joint = False
    fixed = True

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import Mean

        return Mean()(losses)
