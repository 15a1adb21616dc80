"""`rnn`: recurrent layers over a sequence, over the rows of a map, or over a vector as one step.

{"type": "rnn", "cell": "lstm", "hidden": 100, "layers": 2, "bidirectional": True, "dropout": 0.2}
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mtlkit.encoder.layer import sequence_shape
from mtlkit.feature import Mask, Shape, run_stages
from mtlkit.option import Depth, Probability, Size

_CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RNN(nn.Module):
    """Recurrent layers: [B, T, D] -> [B, T, hidden], twice as wide if `bidirectional`.

    A map [C, H, W] is read as H steps of C*W, a vector as one step. Each layer is a stage; `dropout` stands between
    layers, as in `torch.nn.LSTM`. Padded steps are skipped in both directions and come out as zeros.
    """

    input_dtype = "float32"

    def __init__(
        self,
        input_shape: Shape,
        *,
        cell: Literal["rnn", "gru", "lstm"] = "gru",
        hidden: Size = 128,
        layers: Depth = 1,
        bidirectional: bool = False,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        steps, width = sequence_shape(input_shape, "encoder 'rnn'")
        made = hidden * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            Recurrence(cell, width if index == 0 else made, hidden, bidirectional, dropout if index else 0.0)
            for index in range(layers)
        )
        self.output_shape = (steps, made)

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return run_stages(self.stages, x, mask)[-1]


class Recurrence(nn.Module):
    """One recurrent layer that skips padded steps wherever they stand."""

    def __init__(self, cell: str, width: int, hidden: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.cell = _CELLS[cell](width, hidden, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        x = self.dropout(as_sequence(x))
        if mask is None:
            return self.cell(x)[0], None  # [B, T, H]
        # The real steps come first, in their order, so that padding in front or in between is skipped as well.
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True).unsqueeze(-1)  # [B, T, 1]
        # A sequence without a real step still needs one to be packed; its output is zeroed below.
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x.gather(1, order.expand_as(x)), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.cell(packed)[0], batch_first=True, total_length=x.shape[1])
        restored = torch.zeros_like(out).scatter(1, order.expand_as(out), out)
        return restored.masked_fill(~mask.unsqueeze(-1), 0), mask


def as_sequence(x: Tensor) -> Tensor:
    """[B, T, D] of a sequence, of a map [B, C, H, W] by rows, or of a vector [B, D] as one step."""
    if x.ndim == 4:
        return x.transpose(1, 2).flatten(2)  # [B, H, C*W]
    return x.unsqueeze(1) if x.ndim == 2 else x
