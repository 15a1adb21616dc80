"""`transformer`: self-attention over a sequence, over the rows of a map, or over a vector as one step.

{"type": "transformer", "dim": 128, "heads": 4, "layers": 2, "dropout": 0.1}
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtlkit.encoder.layer import sequence_shape
from mtlkit.encoder.rnn import as_sequence
from mtlkit.feature import Mask, Shape, run
from mtlkit.option import Depth, Probability, Size


class Transformer(nn.Module):
    """Pre-norm encoder layers with sinusoidal positions (Vaswani et al. 2017, section 3): [B, T, D] -> [B, T, dim].

    A map [C, H, W] is read as H steps of C*W, a vector as one step. The first stage projects to `dim` and adds the
    positions, each layer is a stage. Padded steps are not attended to.
    """

    input_dtype = "float32"

    def __init__(
        self,
        input_shape: Shape,
        *,
        dim: Size = 128,
        heads: Depth = 4,
        layers: Depth = 2,
        feedforward: Size | None = None,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        steps, width = sequence_shape(input_shape, "encoder 'transformer'")
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads; found dim {dim} and heads {heads}")
        self.project = Projection(width, dim, dropout)
        self.layers = nn.ModuleList(
            Layer(dim, heads, feedforward or 4 * dim, dropout, last=index == layers - 1) for index in range(layers)
        )
        self.output_shape = (steps, dim)

    @property
    def stages(self) -> list[nn.Module]:
        return [self.project, *self.layers]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return run(self.stages, x, mask)


class Projection(nn.Module):
    """Steps projected to the width of the model, with their positions added."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(as_sequence(x))
        return self.dropout(y + sinusoids(y.shape[1], y.shape[2], y.device, y.dtype))  # [B, T, dim]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return self(x), mask


class Layer(nn.Module):
    """One encoder layer; the last one normalises what the stack gives, as pre-norm needs."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, last: bool) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            dim, heads, feedforward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(dim) if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        ignored = None
        if mask is not None:
            # Attention over no step at all is NaN: a sequence without a real step attends to its padding.
            ignored = ~mask & mask.any(1, keepdim=True)
        return self.norm(self.block(x, src_key_padding_mask=ignored)), mask


def sinusoids(steps: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Positions [steps, dim] as sines and cosines (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(steps, device=device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    angle = position * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim].to(dtype)
