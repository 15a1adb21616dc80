"""`imtl_l`: scales learned with the model that make the losses alike in size.

{"type": "imtl_l"}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit.balancing import LossBalancer


class IMTLL(LossBalancer):
    """The loss balance of impartial multi-task learning: a task has a scale s, and its loss L counts as exp(s) L - s.

    "Towards Impartial Multi-task Learning", Liu et al., ICLR 2021, section 3.2. The scales start at 0, so that the
    first step is that of the plain sum. The trainer's optimiser learns them.
    """

    joint = False
    nonnegative = True  # a loss below 0 would make its weight grow for ever

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        # One parameter a task, so that an absent one has no gradient and no optimiser touches it.
        self.log_scale = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in self.tasks])

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        from torchjd.scalarization import IMTLL

        log_scale = torch.stack([self.log_scale[row] for row in self.rows(tasks).tolist()])  # [k]
        # A loss that stays 0 pushes its scale up for ever; exp(88.8) is infinite in float32.
        log_scale = log_scale.clamp_max(80.0)
        return torch.func.functional_call(IMTLL(len(tasks)), {"log_scale": log_scale}, (losses,))
