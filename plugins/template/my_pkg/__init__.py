"""`my_encoder`: what it is, in a line.

{"type": "my_encoder", "width": 32}
"""

import math

from torch import Tensor, nn


class MyEncoder(nn.Module):
    """One hidden layer over the flattened input: [B, *input_shape] -> [B, width]."""

    def __init__(self, input_shape: tuple[int, ...], *, width: int = 32) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(input_shape), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).relu()  # [B, width]
