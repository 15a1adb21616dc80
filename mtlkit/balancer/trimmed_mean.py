"""`trimmed_mean`: the mean of the tasks' gradients, coordinate by coordinate, without the largest and smallest values.

{"type": "trimmed_mean", "trim_number": 1}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, MatrixBalancer
from mtlkit.option import NotNegativeCount


class TrimmedMean(MatrixBalancer):
    """The coordinate-wise trimmed mean.

    "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", Yin et al., ICML 2018, definition 2.
    In a batch with fewer than 2 `trim_number` + 1 tasks it is the mean; so it always is for two tasks.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        trim_number: how many of the largest values, and of the smallest, are left out.

    Raises:
        ValueError: there are too few tasks to leave out so many.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters", trim_number: NotNegativeCount = 1) -> None:
        from torchjd.aggregation import TrimmedMean

        super().__init__(tasks, at=at)
        self._aggregator = TrimmedMean(trim_number)
        self._fewest = 2 * trim_number + 1
        if trim_number > 1 and 1 < len(self.tasks) < self._fewest:
            raise ValueError(
                f"trim_number = {trim_number} needs at least {self._fewest} tasks, and there are {len(self.tasks)}"
            )

    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return self._aggregator(matrix) if len(tasks) >= self._fewest else matrix.mean(0)
