"""`uw`: weights learned with the model, as the uncertainty of each task.

{"type": "uw"}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit.balancing import LossBalancer


class UW(LossBalancer):
    """Uncertainty weighting: each task has a log-variance s, and its loss L counts as (exp(-s) L + s) / 2.

    "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", Kendall et al., CVPR 2018.
    The log-variances start at 0, so that the weights start at 1/2. The trainer's optimiser learns them.
    """

    joint = False
    nonnegative = True  # a loss below 0 would make its weight grow for ever

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        # One parameter a task, so that an absent one has no gradient and no optimiser touches it.
        self.log_var = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in self.tasks])

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import UW

        log_var = torch.stack([self.log_var[row] for row in self.rows(tasks).tolist()])  # [k]
        # A loss that stays 0 pulls its log-variance down for ever; exp(88.8) is infinite in float32.
        log_var = log_var.clamp_min(-80.0)
        return torch.func.functional_call(UW(len(tasks)), {"log_var": log_var}, (losses,))
