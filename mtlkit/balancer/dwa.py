"""`dwa`: tasks whose loss falls slowly weigh more.

{"type": "dwa", "temperature": 2.0}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit.balancing import LossBalancer
from mtlkit.option import Positive


class DWA(LossBalancer):
    """Dynamic weight average: weights by the ratio of each task's mean losses of the last two epochs.

    "End-to-End Multi-Task Learning with Attention", Liu et al., CVPR 2019, equation 7. The weights of the present tasks
    sum to their number. A task's ratio is 1 until two of its epochs are over; an epoch without it leaves it as it is.

    Args:
        tasks: all tasks.
        temperature: the larger, the more alike the weights.
    """

    nonnegative = True
    _mean: Tensor
    _batches: Tensor
    _newer: Tensor
    _older: Tensor
    _epochs: Tensor

    def __init__(self, tasks: Sequence[str], *, temperature: Positive = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        count = len(self.tasks)
        self.register_buffer("_mean", torch.zeros(count))  # of this epoch's batches so far
        self.register_buffer("_batches", torch.zeros(count))
        self.register_buffer("_newer", torch.ones(count))  # means of the task's last epoch and the one before
        self.register_buffer("_older", torch.ones(count))
        self.register_buffer("_epochs", torch.zeros(count))

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import DWA

        rows = self.rows(tasks)
        # TorchJD keeps one history for all tasks, with one count of batches: it is told that of the present ones.
        dwa = DWA(self.temperature)
        for means in (self._older[rows], self._newer[rows]):
            dwa(means)
            dwa.step()
        combined = dwa(losses)
        self._batches[rows] += 1
        self._mean[rows] += (losses.detach().to(self._mean) - self._mean[rows]) / self._batches[rows]
        return combined

    def end_epoch(self) -> None:
        seen = self._batches > 0
        mean = self._mean.clamp_min(torch.finfo(self._mean.dtype).tiny)
        older = torch.where(self._epochs > 0, self._newer, mean)
        # Their ratio must not be infinite, or the weights were NaN.
        older = torch.maximum(older, mean * 1e-30)
        self._older.copy_(torch.where(seen, older, self._older))
        self._newer.copy_(torch.where(seen, mean, self._newer))
        self._epochs += seen
        self._mean.zero_()
        self._batches.zero_()
