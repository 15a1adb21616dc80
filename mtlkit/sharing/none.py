"""`none`: an encoder for each task, which share nothing; the single-task baseline.

{"type": "none"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.trunk import Columns, Trunk


class Separate(nn.Module):
    """An encoder for each task."""

    def __init__(self, trunk: Trunk, tasks: Sequence[str]) -> None:
        super().__init__()
        self.trunks = Columns(trunk, tasks)

    @property
    def origins(self) -> dict[str, str]:
        return self.trunks.origins("trunks")

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        return self.trunks.run(dict.fromkeys(tasks, (x, mask)))
