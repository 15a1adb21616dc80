"""`graddrop`: coordinate by coordinate, the gradients of one sign, drawn at random.

{"type": "graddrop", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, MatrixBalancer
from mtlkit.option import Fraction


class GradDrop(MatrixBalancer):
    """Gradient sign dropout.

    "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", Chen et al., NeurIPS 2020,
    algorithm 1.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        leak: the share of each task's gradient that is never dropped, 0 where none is given.

    Raises:
        ValueError: `leak` names a task that is none.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters", leak: dict[str, Fraction] | None = None) -> None:
        from torchjd.aggregation import GradDrop

        super().__init__(tasks, at=at)
        self._aggregator = GradDrop()
        self._leak = self.by_task(leak, "leak", 0.0)

    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        self._aggregator.leak = self._leak[self.rows(tasks)].to(matrix)
        return self._aggregator(matrix)
