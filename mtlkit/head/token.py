"""`token`: one output for each step of a sequence, as in tagging.

{"type": "token"}
"""

from __future__ import annotations

from torch import Tensor, nn

from mtlkit.feature import Mask, Shape, kind, size, written
from mtlkit.option import Probability


class Token(nn.Linear):
    """One affine map at each step: [B, T, D] -> [B, T, outputs]."""

    def __init__(self, input_shape: Shape, outputs: int, *, dropout: Probability = 0.0) -> None:
        if len(input_shape) != 2:
            raise ValueError(
                f"head 'token' predicts for each step of a sequence [T, D]; found features {written(input_shape)}, "
                f"{kind(input_shape)}. Use an encoder that gives sequences (rnn, transformer), or head 'linear'"
            )
        super().__init__(size(input_shape[1:], "head 'token'"), outputs)
        self.dropout = nn.Dropout(dropout)
        self.output_shape = (input_shape[0], outputs)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (self.dropout, self)

    def before_layers(self, x: Tensor, mask: Mask = None) -> Tensor:
        return x

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        return super().forward(self.dropout(x))  # [B, T, outputs]
