"""`rnn`: recurrent layers over a sequence, over the rows of a map, or over a vector as one step.

{"type": "rnn", "cell": "lstm", "hidden": 100, "layers": 2, "bidirectional": True, "dropout": 0.2}
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mtlkit.encoder.layer import sequence_shape
from mtlkit.feature import Mask, Shape, run
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
            Recurrence(cell, steps, width if index == 0 else made, hidden, bidirectional, dropout if index else 0.0)
            for index in range(layers)
        )
        self.output_shape = (steps, made)

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return run(self.stages, x, mask)


class Recurrence(nn.Module):
    """One recurrent layer that skips padded steps wherever they stand."""

    def __init__(
        self, cell: str, steps: int | None, width: int, hidden: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        # Two cells, not a bidirectional one: that needs packed sequences to skip padding, three times slower on a CPU.
        self.cells = nn.ModuleList(
            _CELLS[cell](width, hidden, batch_first=True) for _ in range(2 if bidirectional else 1)
        )
        # Declared, because on the meta device a cell takes seconds to find it.
        self.output_shape = (steps, hidden * (2 if bidirectional else 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        x = self.dropout(as_sequence(x))
        if mask is None:
            there = self.cells[0](x)[0]
            back = [cell(x.flip(1))[0].flip(1) for cell in self.cells[1:]]
            return torch.cat([there, *back], -1), None  # [B, T, H]
        real = mask.unsqueeze(-1)
        x = x.masked_fill(~real, 0)
        # The real steps come first, so that no cell sees padding before it has seen them all.
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # [B, T]
        read = [_read(self.cells[0], x, order)]
        for cell in self.cells[1:]:
            steps, length = torch.arange(x.shape[1], device=x.device), mask.sum(1, keepdim=True)
            backwards = torch.where(steps < length, length - 1 - steps, steps)
            read.append(_read(cell, x, order.gather(1, backwards)))
        return torch.cat(read, -1).masked_fill(~real, 0), mask


def _read(cell: nn.Module, x: Tensor, order: Tensor) -> Tensor:
    """What a cell makes of the steps in this order, each put back where it came from."""
    made = cell(x.gather(1, order.unsqueeze(-1).expand_as(x)))[0]  # [B, T, H]
    return torch.zeros_like(made).scatter(1, order.unsqueeze(-1).expand_as(made), made)


def as_sequence(x: Tensor) -> Tensor:
    """[B, T, D] of a sequence, of a map [B, C, H, W] by rows, or of a vector [B, D] as one step."""
    if x.ndim == 4:
        return x.transpose(1, 2).flatten(2)  # [B, H, C*W]
    return x.unsqueeze(1) if x.ndim == 2 else x
