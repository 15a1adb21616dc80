"""`excess_mtl`: tasks that are far from the best that they can reach weigh more.

{"type": "excess_mtl", "robust_step_size": 1.0}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancing import GradientBalancer, TaskGradients
from mtlkit.option import NotNegativeCount, Positive


class ExcessMTL(GradientBalancer):
    """Weights by excess risk, which the gradients and the curvature seen so far estimate.

    "Robust Multi-Task Learning with Excess Risks", He et al., ICML 2024, equations 6, 7 and 9. A task's excess risk is
    measured by that of its warm-up, or of its first batch where it had none. For each task it keeps as many numbers as
    there are shared parameters, so it has no place at features, which are others in every batch.

    Args:
        tasks: all tasks.
        robust_step_size: how fast the weights follow the excess risks. The smaller, the longer it takes until one
            task has all the weight.
        n_warmup_steps: steps in the beginning in which all tasks weigh the same; the paper takes those of three epochs.
    """

    needs_matrix = True
    _log_weights: Tensor
    _first: Tensor
    _warmed: Tensor
    _warmups: Tensor
    _steps: Tensor
    _squares: Tensor

    def __init__(
        self, tasks: Sequence[str], *, robust_step_size: Positive = 1.0, n_warmup_steps: NotNegativeCount = 0
    ) -> None:
        super().__init__(tasks)
        self.robust_step_size, self.n_warmup_steps = robust_step_size, n_warmup_steps
        count = len(self.tasks)
        self.register_buffer("_log_weights", torch.zeros(count))
        self.register_buffer("_first", torch.full((count,), -1.0))  # the excess risk that the others are measured by
        self.register_buffer("_warmed", torch.zeros(count))  # the sum of excess risks in the warm-up
        self.register_buffer("_warmups", torch.zeros(count))  # of so many batches
        self.register_buffer("_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("_squares", torch.zeros(count, 0))  # [T, n], n as soon as it is known

    def balance(self, gradients: TaskGradients) -> None:
        self._combine(gradients, self.weigh(gradients.matrix, gradients.tasks))

    def weigh(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        """The weight of each task's gradient, [k]; they sum to 1.

        Args:
            matrix: [k, n], the tasks' gradients.
            tasks: their names.
        """
        if self._squares.shape[1] != matrix.shape[1]:
            # The first batch; or parameters were frozen or freed, and all that was measured is of others.
            for value in (self._log_weights, self._warmed, self._warmups, self._steps):
                value.zero_()
            self._first.fill_(-1.0)
            self._squares = matrix.new_zeros(len(self.tasks), matrix.shape[1])
        rows = self.rows(tasks).to(matrix.device)
        self._steps += 1
        return self._warm_up(matrix, rows) if self._steps <= self.n_warmup_steps else self._follow(matrix, rows)

    def _warm_up(self, matrix: Tensor, rows: Tensor) -> Tensor:
        """The same weight for all, and the tasks' excess risks kept."""
        weighting = self._weighting(matrix, rows, n_warmup_steps=1)
        weighting._weights = matrix.new_full((len(rows),), 1 / len(rows))
        weighting._warmup_w_sum = self._warmed[rows]
        weights: Tensor = weighting(matrix)
        self._squares[rows], self._warmed[rows] = weighting._sq_grad_sum, weighting._warmup_w_sum
        self._warmups[rows] += 1
        return weights

    def _follow(self, matrix: Tensor, rows: Tensor) -> Tensor:
        """Weights that follow the excess risks."""
        self._begin(matrix, rows)
        weighting = self._weighting(matrix, rows)
        weighting._initial_w = torch.where(self._squares[rows].any(1), self._first[rows], 1.0)
        before = self._log_weights[rows]
        weighting._weights = before.softmax(0)
        weights: Tensor = weighting(matrix)
        self._squares[rows] = weighting._sq_grad_sum
        # The present tasks share what they had among themselves; a weight of 0 would never grow again.
        tiny = torch.finfo(weights.dtype).tiny
        self._log_weights[rows] = weights.clamp_min(tiny).log() + before.logsumexp(0)
        return weights

    def _weighting(self, matrix: Tensor, rows: Tensor, n_warmup_steps: int = 0) -> Any:
        """TorchJD's method for the present tasks; it keeps state of one fixed set of tasks itself."""
        from torchjd.aggregation import ExcessMTLWeighting

        weighting: Any = ExcessMTLWeighting(self.robust_step_size, n_warmup_steps)
        weighting._state_key = (*matrix.shape, matrix.dtype, matrix.device)
        weighting._sq_grad_sum = self._squares[rows]
        return weighting

    def _begin(self, matrix: Tensor, rows: Tensor) -> None:
        """What the excess risks of tasks are measured by: the mean of their warm-up, or that of their first batch."""
        from torchjd.aggregation import ExcessMTLWeighting

        warm = rows[(self._first[rows] < 0) & (self._warmups[rows] > 0)]
        self._first[warm] = self._warmed[warm] / self._warmups[warm]
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
