"""`linear`: one affine map of the flattened input.

{"type": "linear", "features": 20}
"""

from __future__ import annotations

from torch import Tensor, nn

from mtlkit.feature import Shape, size
from mtlkit.option import Size


class Linear(nn.Linear):
    """One affine map: [B, *input_shape] -> [B, features]."""

    input_dtype = "float32"

    def __init__(self, input_shape: Shape, *, features: Size = 64, bias: bool = True) -> None:
        super().__init__(size(input_shape, "encoder 'linear'"), features, bias)
        self.output_shape = (features,)

    @property
    def stages(self) -> list[nn.Module]:
        return [self]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))  # [B, features]
