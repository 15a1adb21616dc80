"""`random`: random weights, drawn anew for each batch.

{"type": "random"}
"""

from __future__ import annotations

from torch import Tensor

from mtlkit.balancing import LossBalancer


class Random(LossBalancer):
    """Random loss weighting (RLW): the softmax of normal draws, one a task.

    "Reasonable Effectiveness of Random Weighting", Lin et al., TMLR 2022, algorithm 2. A litmus test: a method that is
    no better than this one balances nothing. The draws come from torch's global generator.
    """

    symmetric = False  # the first draw is the first task's

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import Random

        return Random()(losses)
