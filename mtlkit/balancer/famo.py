"""`famo`: weights under which all losses fall at the same relative rate, learned from how the last step changed them.

{"type": "famo", "lr": 0.025, "weight_decay": 0.001}

After each step the losses of the batch are computed once more, which costs one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancer._adam import AdamByTask
from mtlkit.balancing import LossBalancer
from mtlkit.option import NotNegative


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
        self.register_buffer("_min_losses", self.by_task(min_losses, "min_losses", 0.0), persistent=False)
        self._adam = AdamByTask(torch.zeros(len(self.tasks)), lr, weight_decay)
        # TorchJD's FAMO of the last batch, until the step is made. In a tuple, to be no submodule.
        self._last: tuple[tuple[str, ...], Any] | None = None

    def takes_negative(self, task: str) -> bool:
        return bool(self._min_losses[self._row[task]] < 0)

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import FAMO

        rows = self.rows(tasks)
        famo = FAMO(len(tasks), self._min_losses[rows]).to(self._adam.value.device)
        (logits,) = famo.parameters()
        logits.data.copy_(self._adam.value[rows])
        self._last = tasks, famo
        return famo(self._bounded(losses, rows))

    def after_step(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
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
        famo._optimizer = _Handed(self._adam, logits, rows)
        famo.update(self._bounded(torch.stack([after[task] for task in tasks]), rows))

    def _bounded(self, losses: Tensor, rows: Tensor) -> Tensor:
        least = self._min_losses[rows].to(losses.dtype)
        return torch.where(losses < least, least, losses)


class _Handed:
    """The optimiser that TorchJD calls once it has left the gradient of the logits [k] in their `.grad`."""

    def __init__(self, adam: AdamByTask, logits: Tensor, rows: Tensor) -> None:
        self.adam, self.logits, self.rows = adam, logits, rows

    def step(self) -> None:
        assert self.logits.grad is not None
        self.adam.step(self.rows, self.logits.grad)
