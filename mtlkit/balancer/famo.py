"""`famo`: weights under which all losses fall at the same relative rate, learned from how the last step changed them.

{"type": "famo", "lr": 0.025, "weight_decay": 0.001}

After each step the losses of the batch are computed once more, which costs one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from mtlkit.balancing import LossBalancer

NotNegative = Annotated[float, Field(ge=0)]


class FAMO(LossBalancer):
    """Fast adaptive multitask optimization.

    "FAMO: Fast Adaptive Multitask Optimization", Liu et al., NeurIPS 2023, algorithm 1. The logits of the present tasks
    learn from the step; those of the others, and what Adam knows of them, stay as they are.

    Args:
        tasks: all tasks.
        lr: the learning rate of the logits.
        weight_decay: how strongly the logits are drawn to 0, where all weights are the same.
        min_losses: the smallest loss that each task can have, 0 where none is given. A loss below counts as this.

    Raises:
        ValueError: `min_losses` names a task that is none.
    """

    nonnegative = True
    _logits: Tensor
    _steps: Tensor
    _exp_avg: Tensor
    _exp_avg_sq: Tensor
    _min_losses: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        lr: NotNegative = 0.025,
        weight_decay: NotNegative = 1e-3,
        min_losses: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.lr, self.weight_decay = lr, weight_decay
        self.register_buffer("_min_losses", self.by_task(min_losses, "min_losses", 0.0), persistent=False)
        for name in ("_logits", "_steps", "_exp_avg", "_exp_avg_sq"):
            self.register_buffer(name, torch.zeros(len(self.tasks)))
        # TorchJD's FAMO of the last batch, until the step is made. In a tuple, to be no submodule.
        self._last: tuple[tuple[str, ...], Any] | None = None

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import FAMO

        rows = self.rows(tasks)
        famo = FAMO(len(tasks), self._min_losses[rows], self.lr, self.weight_decay).to(self._logits.device)
        (logits,) = famo.parameters()
        logits.data.copy_(self._logits[rows])
        self._last = tasks, famo
        return famo(self._bounded(losses, rows))

    def after_step(self, losses: Callable[[], dict[str, Tensor]]) -> None:
        """Learn from how the step changed the losses of its last batch.

        Args:
            losses: computes the losses of that batch anew, {task: scalar}.
        """
        if self._last is None:
            return
        (tasks, famo), self._last = self._last, None
        if len(tasks) < 2:
            # Beside no other task, a logit has nothing to learn.
            return
        rows, after = self.rows(tasks), losses()
        (logits,) = famo.parameters()
        # TorchJD's own Adam would know but one number of steps, and forget the tasks' moments with each batch.
        famo._optimizer = adam = _AdamByTask(self, logits, rows)
        famo.update(self._bounded(torch.stack([after[task] for task in tasks]), rows))
        adam.keep()

    def _bounded(self, losses: Tensor, rows: Tensor) -> Tensor:
        least = self._min_losses[rows].to(losses.dtype)
        return torch.where(losses < least, least, losses)


class _AdamByTask:
    """Adam on the logits of some tasks [k], each with its own number of steps and its own moments."""

    def __init__(self, famo: FAMO, logits: Tensor, rows: Tensor) -> None:
        self.famo, self.logits, self.rows = famo, logits, rows
        self.each = [row.clone().requires_grad_() for row in logits.detach()]
        self.adam = torch.optim.Adam(self.each, lr=famo.lr, weight_decay=famo.weight_decay)
        for logit, row in zip(self.each, rows.tolist(), strict=True):
            if famo._steps[row] > 0:
                self.adam.state[logit] = {
                    # Adam keeps its count on the CPU.
                    "step": famo._steps[row].cpu().clone(),
                    "exp_avg": famo._exp_avg[row].clone(),
                    "exp_avg_sq": famo._exp_avg_sq[row].clone(),
                }

    def step(self) -> None:
        """What TorchJD calls once it has left the gradient of the logits in their `.grad`."""
        assert self.logits.grad is not None
        for logit, grad in zip(self.each, self.logits.grad, strict=True):
            logit.grad = grad.clone()
        self.adam.step()

    def keep(self) -> None:
        """Write the logits and the state of Adam back to the balancer."""
        famo, states = self.famo, [self.adam.state[logit] for logit in self.each]
        famo._logits[self.rows] = torch.stack([logit.detach() for logit in self.each])
        famo._steps[self.rows] = torch.stack([state["step"] for state in states]).to(famo._steps)
        famo._exp_avg[self.rows] = torch.stack([state["exp_avg"] for state in states])
        famo._exp_avg_sq[self.rows] = torch.stack([state["exp_avg_sq"] for state in states])
