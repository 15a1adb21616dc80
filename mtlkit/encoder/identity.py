"""`identity`: the input itself, for tables of ready-made features and for tests of heads.

{"type": "identity"}
"""

from __future__ import annotations

from torch import Tensor, nn

from mtlkit.feature import Mask, Shape


class Identity(nn.Module):
    """The input as it is: [B, *input_shape] -> [B, *input_shape]."""

    input_dtype = "float32"

    def __init__(self, input_shape: Shape) -> None:
        super().__init__()
        self.output_shape = tuple(input_shape)

    @property
    def stages(self) -> list[nn.Module]:
        return [self]

    def forward(self, x: Tensor) -> Tensor:
        return x

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return x, mask
