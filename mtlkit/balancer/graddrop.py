"""`graddrop`: coordinate by coordinate, the gradients of one sign, drawn at random.

{"type": "graddrop", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, MatrixBalancer


class GradDrop(MatrixBalancer):
    """Gradient sign dropout.

    "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", Chen et al., NeurIPS 2020,
    algorithm 1.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
    """

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters") -> None:
        from torchjd.aggregation import GradDrop

        super().__init__(tasks, at)
        self._aggregator = GradDrop()

    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return self._aggregator(matrix)
