"""Adam on one number a task, of which each step moves some.

adam = AdamByTask(torch.ones(3), lr=0.025)
adam.step(torch.tensor([0, 2]), gradients)      # the second task's number, and what Adam knows of it, stay
adam.value                                      # [3]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AdamByTask(nn.Module):
    """Adam with its number of steps and its moments by task, all in buffers.

    Args:
        start: [T], where the numbers begin.
        lr: the learning rate.
        weight_decay: how strongly they are drawn to 0.
    """

    value: Tensor
    _steps: Tensor
    _exp_avg: Tensor
    _exp_avg_sq: Tensor

    def __init__(self, start: Tensor, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.register_buffer("value", start.clone())
        for name in ("_steps", "_exp_avg", "_exp_avg_sq"):
            self.register_buffer(name, torch.zeros_like(start))

    def step(self, rows: Tensor, gradients: Tensor) -> None:
        """Move the numbers of some tasks.

        Args:
            rows: [k], which.
            gradients: [k], their gradients.
        """
        # One parameter each: torch's Adam has one number of steps for all values of a parameter.
        each = [value.clone().requires_grad_() for value in self.value[rows]]
        adam = torch.optim.Adam(each, lr=self.lr, weight_decay=self.weight_decay)
        for value, gradient, row in zip(each, gradients.to(self.value), rows.tolist(), strict=True):
            value.grad = gradient.clone()
            if self._steps[row] > 0:
                adam.state[value] = {
                    # Adam keeps its count on the CPU.
                    "step": self._steps[row].cpu().clone(),
                    "exp_avg": self._exp_avg[row].clone(),
                    "exp_avg_sq": self._exp_avg_sq[row].clone(),
                }
        adam.step()
        states = [adam.state[value] for value in each]
        self.value[rows] = torch.stack([value.detach() for value in each])
        self._steps[rows] = torch.stack([state["step"] for state in states]).to(self._steps)
        self._exp_avg[rows] = torch.stack([state["exp_avg"] for state in states])
        self._exp_avg_sq[rows] = torch.stack([state["exp_avg_sq"] for state in states])
