"""`pcd`: follow one task's gradient, as long as every other task gets a share of the progress that it could make.

{"type": "pcd", "primary": "digit", "tau": 0.02}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from mtlkit.balancing import At, GramianBalancer
from mtlkit.option import Fraction, NotNegative

_MANY_STEPS = 10**9  # after which an average of exponential decay has no bias left


class PCD(GramianBalancer):
    """Priority-constrained descent: one primary task, and a guarantee for the others.

    "Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical Multi-Objective Optimization",
    TMLR 2026. Gradients are compared after division by the root of their average squared length. Where the primary task
    is absent from a batch, the first of the others stands in for it.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        primary: the task that is followed; the first if left out.
        tau: the share of its own progress that every other task is guaranteed.
        beta: the decay of the average squared length, which each task has of its own.
        eps: added to it.

    Raises:
        ValueError: `primary` is no task.
    """

    scale_free = False
    symmetric = False
    _squares: Tensor
    _steps: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        at: At = "parameters",
        primary: str | None = None,
        tau: Fraction = 0.02,
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.999,
        eps: NotNegative = 1e-8,
    ) -> None:
        super().__init__(tasks, at=at)
        if primary is not None and primary not in self.tasks:
            raise ValueError(f"primary is {primary!r}, which is no task. Tasks: {', '.join(self.tasks)}")
        self.primary = self.tasks[0] if primary is None else primary
        self.tau, self.beta, self.eps = tau, beta, eps
        self.register_buffer("_squares", torch.zeros(len(self.tasks), dtype=torch.float64))
        self.register_buffer("_steps", torch.zeros(len(self.tasks), dtype=torch.float64))

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.aggregation import PCDWeighting

        rows, squares = self.rows(tasks), gramian.diagonal()
        self._steps[rows] += 1
        self._squares[rows] = self.beta * self._squares[rows] + (1 - self.beta) * squares
        unbiased = self._squares[rows] / (1 - self.beta ** self._steps[rows])
        weighting: Any = PCDWeighting(self.tau, self.beta, self.eps)
        # TorchJD counts the same steps for all tasks: it is told averages without a bias, as before this step.
        weighting._sq_norm_ema = ((unbiased - (1 - self.beta) * squares) / self.beta if self.beta else squares).cpu()
        weighting._n_steps = torch.tensor(_MANY_STEPS)
        weighting._state_key = len(tasks)
        # The primary task comes first there.
        order = sorted(range(len(tasks)), key=lambda row: tasks[row] != self.primary)
        weighting._sq_norm_ema = weighting._sq_norm_ema[order]
        weights = torch.empty_like(squares)
        weights[order] = weighting(gramian[order][:, order])
        return weights
