"""`gradnorm`: weights under which the tasks' gradients have lengths that fit how far each task has come.

{"type": "gradnorm", "alpha": 1.5}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit.balancer._adam import AdamByTask
from mtlkit.balancing import GradientBalancer, Step, stacked
from mtlkit.option import NotNegative, Positive

_LEAST = 1e-3  # of a weight: Adam's step may lead below 0


class GradNorm(GradientBalancer):
    """Gradient normalization: a task that trains slowly gets a longer gradient at the last layer that all tasks share.

    "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks", Chen et al., ICML 2018,
    algorithm 1. The weights are positive and sum to the number of tasks. Adam moves them after they have weighed the
    losses of the step; those of absent tasks stay, and the present ones keep their sum. A task's training rate is
    relative to its loss in its first batch.

    Args:
        tasks: all tasks.
        alpha: how strongly slow tasks are pulled; 0 makes all gradients equally long.
        lr: the learning rate of the weights.
    """

    nonnegative = True
    _first: Tensor

    def __init__(self, tasks: Sequence[str], *, alpha: NotNegative = 1.5, lr: Positive = 0.025) -> None:
        super().__init__(tasks)
        self.at = "last_layer"
        self.alpha = alpha
        self._adam = AdamByTask(torch.ones(len(self.tasks)), lr)
        self.register_buffer("_first", torch.full((len(self.tasks),), -1.0, dtype=torch.float64))

    def backward(self, step: Step) -> None:
        tasks = tuple(step.losses)
        losses = stacked(step.losses)
        rows = self.rows(tasks)
        weights = self._adam.value[rows]
        self._weighed(tasks, weights)
        if len(tasks) > 1:
            self._learn(step, losses.detach().double(), rows)
        step.backward((weights.to(losses) * losses).sum())

    def _learn(self, step: Step, losses: Tensor, rows: Tensor) -> None:
        """One step of the weights [k] towards the lengths that the losses [k] ask for (equations 1 and 2)."""
        lengths = step.gradients("last_layer").gramian.diagonal().clamp_min(0).sqrt()
        self._first[rows] = torch.where(self._first[rows] < 0, losses, self._first[rows])
        # Losses of 0 must not make the rates NaN.
        ratios = losses / self._first[rows].clamp_min(1e-30)
        rates = ratios / ratios.mean().clamp_min(1e-30)
        before = self._adam.value[rows].double()
        weights = before.clone().requires_grad_()
        weighted = weights * lengths
        wanted = (weighted.mean() * rates**self.alpha).detach()
        (gradients,) = torch.autograd.grad((weighted - wanted).abs().sum(), weights)
        self._adam.step(rows, gradients)
        after = self._adam.value[rows].double().clamp_min(_LEAST)
        self._adam.value[rows] = (after * before.sum() / after.sum()).to(self._adam.value)
