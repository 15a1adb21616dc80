"""`linear`: one affine map of the pooled features; the default.

{"type": "linear", "pool": "mean"}
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit.feature import Mask, Pool, Shape, feature_axis, pool, size


class Linear(nn.Linear):
    """One affine map: features -> [B, outputs]. Sequences and maps are pooled over steps and positions first."""

    def __init__(self, input_shape: Shape, outputs: int, *, pool: Pool = "mean", bias: bool = True) -> None:
        super().__init__(size((input_shape[feature_axis(input_shape)],), "head 'linear'"), outputs, bias)
        self.pool: Pool = pool
        self.output_shape = (outputs,)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (self,)

    def before_layers(self, x: Tensor, mask: Mask = None) -> Tensor:
        return pool(x, mask, self.pool)  # [B, D]

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        return F.linear(self.before_layers(x, mask), self.weight, self.bias)  # [B, outputs]
