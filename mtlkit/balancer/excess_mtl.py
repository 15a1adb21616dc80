"""`excess_mtl`: tasks that are far from the best that they can reach weigh more.

{"type": "excess_mtl", "robust_step_size": 1.0}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancing import GradientBalancer, TaskGradients
from mtlkit.option import Positive


class ExcessMTL(GradientBalancer):
    """Weights by excess risk, which the gradients and the curvature seen so far estimate.

    "Robust Multi-Task Learning with Excess Risks", He et al., ICML 2024, equations 6, 7 and 9. A task's first batch
    is what its excess risk is measured by. For each task it keeps as many numbers as there are shared parameters, so
    it has no place at features, which are others in every batch.

    Args:
        tasks: all tasks.
        robust_step_size: how fast the weights follow the excess risks.
    """

    needs_matrix = True
    _log_weights: Tensor
    _first: Tensor
    _squares: Tensor

    def __init__(self, tasks: Sequence[str], *, robust_step_size: Positive = 1.0) -> None:
        super().__init__(tasks, "parameters")
        self.robust_step_size = robust_step_size
        count = len(self.tasks)
        self.register_buffer("_log_weights", torch.zeros(count))
        self.register_buffer("_first", torch.full((count,), -1.0))  # excess risk in a task's first batch
        self.register_buffer("_squares", torch.zeros(count, 0))  # [T, n], n as soon as it is known

    def balance(self, gradients: TaskGradients) -> None:
        weights = self.weigh(gradients.matrix, gradients.tasks)
        self.weights = dict(zip(gradients.tasks, weights, strict=True))
        gradients.combine(weights)

    def weigh(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """The weight of each task's gradient, [k]; they sum to 1.

        Args:
            matrix: [k, n], the tasks' gradients.
            tasks: their names.
        """
        from torchjd.aggregation import ExcessMTLWeighting

        if not self._squares.shape[1]:
            self._squares = matrix.new_zeros(len(self.tasks), matrix.shape[1])
        rows = self.rows(tasks).to(matrix.device)
        self._begin(matrix, rows)
        weighting: Any = ExcessMTLWeighting(self.robust_step_size)
        weighting._state_key = (*matrix.shape, matrix.dtype, matrix.device)
        weighting._sq_grad_sum = self._squares[rows]
        weighting._initial_w = torch.where(self._squares[rows].any(1), self._first[rows], 1.0)
        before = self._log_weights[rows]
        weighting._weights = before.softmax(0)
        weights: Tensor = weighting(matrix)
        self._squares[rows] = weighting._sq_grad_sum
        # The present tasks share what they had among themselves; a weight of 0 would never grow again.
        tiny = torch.finfo(weights.dtype).tiny
        self._log_weights[rows] = weights.clamp_min(tiny).log() + before.logsumexp(0)
        return weights

    def _begin(self, matrix: Tensor, rows: Tensor) -> None:
        """Take the excess risk of tasks that come for the first time as that by which the later ones are measured."""
        from torchjd.aggregation import ExcessMTLWeighting

        new = self._first[rows] < 0
        if bool(new.any()):
            first: Any = ExcessMTLWeighting()
            first(matrix[new])
            self._first[rows[new]] = first._initial_w

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        kept = state_dict.get(f"{prefix}_squares")
        if kept is not None:
            self._squares = torch.zeros_like(kept, device=self._squares.device)
        super()._load_from_state_dict(state_dict, prefix, *others)
