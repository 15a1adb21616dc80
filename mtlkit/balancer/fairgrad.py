"""`fairgrad`: weights of an alpha-fair allocation of the step.

{"type": "fairgrad", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from mtlkit.balancer._weighting import WeightingBalancer
from mtlkit.balancing import At
from mtlkit.option import Count, NotNegative


class FairGrad(WeightingBalancer):
    """Fair resource allocation: weights under which the tasks' alpha-fair utility grows most.

    "Fair Resource Allocation in Multi-Task Learning", Ban and Ji, ICML 2024, section 4. It depends on the scale of the
    gradients. Needs the extra `solvers`.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        alpha: 0 is the mean, 1 proportional fairness; larger values favour the worst task.
        max_iters: the most iterations of the search for the weights; the solver's own limit if left out.
    """

    scale_free = False

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        alpha: NotNegative = 1.0,
        max_iters: Count | None = None,
    ) -> None:
        from torchjd.aggregation import FairGradWeighting

        super().__init__(tasks, FairGradWeighting(alpha, max_iters), at=at)
