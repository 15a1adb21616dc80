"""`fairgrad`: weights of an alpha-fair allocation of the step.

{"type": "fairgrad", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import NotNegative


class FairGrad(GramianBalancer):
    """Fair resource allocation: weights under which the tasks' alpha-fair utility grows most.

    "Fair Resource Allocation in Multi-Task Learning", Ban and Ji, ICML 2024, section 4. It depends on the scale of the
    gradients. Needs the extra `solvers`.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        alpha: 0 is the mean, 1 proportional fairness; larger values favour the worst task.
    """

    scale_free = False

    def __init__(self, tasks: Sequence[str], *, at: At = "parameters", alpha: NotNegative = 1.0) -> None:
        from torchjd.aggregation import FairGradWeighting

        super().__init__(tasks, at)
        self._weighting = FairGradWeighting(alpha=alpha)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return self._weighting(gramian)
