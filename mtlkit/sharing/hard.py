"""`hard`: one encoder for all tasks (Caruana 1997), the default.

{"type": "hard"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtlkit.feature import Mask, Value, apply
from mtlkit.trunk import Trunk


class Hard(nn.Module):
    """One encoder, whose features all tasks see."""

    def __init__(self, trunk: Trunk, tasks: Sequence[str]) -> None:
        super().__init__()
        self.trunk = trunk.make()

    @property
    def common_encoder(self) -> nn.Module:
        return self.trunk

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        return dict.fromkeys(tasks, apply(self.trunk, x, mask))
