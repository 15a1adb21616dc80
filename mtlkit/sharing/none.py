"""`none`: an encoder for each task, which share nothing; the single-task baseline.

{"type": "none"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtlkit.feature import Mask, apply
from mtlkit.naming import module_name
from mtlkit.trunk import Trunk


class Separate(nn.Module):
    """An encoder for each task."""

    def __init__(self, trunk: Trunk, tasks: Sequence[str]) -> None:
        super().__init__()
        self.trunks = nn.ModuleDict({module_name(task): trunk.make() for task in tasks})

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, tuple[Tensor, Mask]]:
        return {task: apply(self.trunks[module_name(task)], x, mask) for task in tasks}
