"""`cross_stitch`: an encoder for each task, whose features are mixed after each stage.

{"type": "cross_stitch", "same": 0.9, "per_channel": False}

Misra et al. 2016, "Cross-stitch Networks for Multi-task Learning", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.option import Fraction
from mtlkit.sharing.layer import Mixing, channels, combined, diagonal
from mtlkit.trunk import Columns, Trunk


class CrossStitch(nn.Module):
    """An encoder for each task. What a task's next stage reads is a learned sum over all tasks' features.

    The paper gives the weights a hundred to a thousand times the learning rate of networks trained before; here they
    are trained as all else, from the start.

    Args:
        same: the first weight of a task's own features; the others share the rest of 1. `same=1` begins as `none`.
        per_channel: weights for each channel, as in the paper's experiments, not for each stage.
    """

    def __init__(self, trunk: Trunk, tasks: Sequence[str], *, same: Fraction = 0.9, per_channel: bool = False) -> None:
        super().__init__()
        self.trunks = Columns(trunk, tasks)
        initial = diagonal(len(tasks), same)
        self.mixings = nn.ModuleList()
        for shape in trunk.stage_shapes:
            sizes = (channels(shape, "cross_stitch with per_channel"), 1, 1) if per_channel else (1, 1)
            self.mixings.append(Mixing(tasks, tasks, initial.repeat(sizes)))

    @property
    def origins(self) -> dict[str, str]:
        return self.trunks.origins("trunks")

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        everyone = self.trunks.names
        values = dict.fromkeys(everyone, (x, mask))
        for stage, mixing in enumerate(self.mixings):
            values = self.trunks.run(values, stage, stage + 1, together=True)
            readers = tasks if stage == len(self.mixings) - 1 else everyone
            weights = mixing()[..., [everyone.index(task) for task in readers], :]
            stacked = torch.stack([x for x, _ in values.values()])  # [tasks, B, ...]
            if weights.ndim == 2:
                made = combined(weights, stacked)
            else:
                of_maps = stacked.ndim == 5
                made = torch.einsum("crt,tbc...->rbc..." if of_maps else "crt,tb...c->rb...c", weights, stacked)
            values = {task: (y, values[task][1]) for task, y in zip(readers, made, strict=True)}
        return values
