"""`nash_mtl`: the gradient on which the tasks would agree if they bargained.

{"type": "nash_mtl", "at": "features", "max_norm": 1.0}
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancer._weighting import rows_like
from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import Count, NotNegative


class NashMTL(GramianBalancer):
    """The Nash bargaining solution: the product of the tasks' gains is largest.

    "Multi-Task Learning as a Bargaining Game", Navon et al., ICML 2022, algorithm 1. The weights of the last step are
    where the search of the next one begins, and what it keeps if it fails. Needs the extra `solvers`.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        max_norm: the largest length of the balanced gradient; 0 for any length. It makes the result depend on the
            scale of the gradients.
        update_weights_every: steps for which weights are used before new ones are sought.
        optim_niter: convex problems solved a step, at most.
    """

    scale_free = False
    _alpha: Tensor
    _steps: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        max_norm: NotNegative = 1.0,
        update_weights_every: Count = 1,
        optim_niter: Count = 20,
    ) -> None:
        super().__init__(tasks, at=at)
        self.max_norm, self.update_weights_every, self.optim_niter = max_norm, update_weights_every, optim_niter
        self.register_buffer("_alpha", torch.ones(len(self.tasks), dtype=torch.float64))
        self.register_buffer("_steps", torch.zeros((), dtype=torch.int64))
        self._solvers: dict[int, Any] = {}
        # Made now, so that a missing solver is told of now. One task alone has nothing to bargain for.
        self._solver(max(2, len(self.tasks)))

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        rows, solver = self.rows(tasks), self._solver(len(tasks))
        due = int(self._steps) % self.update_weights_every == 0
        # TorchJD counts steps itself: a multiple of the period is one at which it seeks new weights.
        solver.step = self.update_weights_every if due else self.update_weights_every + 1
        solver.prvs_alpha = self._alpha[rows].cpu().numpy()
        with warnings.catch_warnings():
            # That cvxpy can't reuse a solution is of no use to who trains.
            warnings.filterwarnings("ignore", message=".*not DPP")
            weights: Tensor = solver(rows_like(gramian))
        self._alpha[rows] = torch.as_tensor(solver.prvs_alpha).to(self._alpha)
        self._steps += 1
        return weights

    def _solver(self, count: int) -> Any:
        """TorchJD's method for so many tasks; setting its problem up costs more than solving it."""
        from torchjd.aggregation import NashMTL

        if count not in self._solvers:
            made = NashMTL(count, self.max_norm, self.update_weights_every, self.optim_niter).weighting
            made._init_optim_problem()
            self._solvers[count] = made
        return self._solvers[count]
