"""`tcn`: a temporal convolutional network over a sequence, or over the rows of a map.

    {"type": "tcn", "channels": [64, 64, 64], "kernel": 3, "dropout": 0.2, "causal": True}

Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
Modeling", 2018 (arXiv:1803.01271), section 3.
"""

from __future__ import annotations

from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from mtlkit.option import Probability, Size, Sizes

# A convolution pads each example by its whole reach, so an example takes memory for at least as many steps.
_LONGEST_REACH = 2**20


class TCN(nn.Module):
    """Residual blocks of dilated convolutions: [B, T, D] -> [B, T, channels[-1]].

    `channels=(64, 32)` is two blocks with dilations 1 and 2; each next block doubles it. A block is a stage.
    A step sees `receptive_field` steps: itself and those before it, or, where not `causal`, as many before it as
    after it. A map [C, H, W] is read as H steps of C*W.

    `dropout` drops whole channels (the paper's spatial dropout). With a mask, padding is zero to every
    convolution, so that a real step's features do not depend on it.
    """

    input_dtype = "float32"

    def __init__(
        self,
        input_shape: tuple[int | None, ...],
        *,
        channels: Annotated[Sizes, Field(min_length=1)] = (64, 64, 64),  # type: ignore[assignment]
        kernel: Size = 3,
        dropout: Probability = 0.2,
        causal: bool = True,
    ) -> None:
        super().__init__()
        steps, width = _steps_and_width(input_shape)
        self.receptive_field = 1 + 2 * (kernel - 1) * (2 ** len(channels) - 1)
        if self.receptive_field > _LONGEST_REACH:
            raise ValueError(
                f"encoder 'tcn' expected a receptive field of at most {_LONGEST_REACH} steps, found "
                f"{self.receptive_field} from {len(channels)} channels and kernel {kernel}. Each entry of "
                "channels doubles it: use fewer, or a smaller kernel"
            )
        self.stages = nn.ModuleList()
        for index, after in enumerate(channels):
            # A single tap has no distance to the next, and 2**index would overflow in a deep stack of them.
            dilation = 2**index if kernel > 1 else 1
            self.stages.append(Block(width, after, kernel, dilation, dropout, causal))
            width = after
        self.output_shape = (steps, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for block in self.stages:
            x, mask = cast(Block, block).forward_masked(x, mask)
        return x, mask


class Block(nn.Module):
    """Two dilated convolutions and a shortcut: [B, T, before] -> [B, T, after] (the paper's figure 1b)."""

    def __init__(self, before: int, after: int, kernel: int, dilation: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.first = Convolution(before, after, kernel, dilation, dropout, causal)
        self.second = Convolution(after, after, kernel, dilation, dropout, causal)
        self.shortcut = nn.Identity() if before == after else nn.Linear(before, after)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = _zero_padding(_as_sequence(x), mask)
        h = self.second(_zero_padding(self.first(x), mask))
        return torch.relu(h + self.shortcut(x)), mask


class Convolution(nn.Module):
    """A dilated convolution that keeps the length, ReLU, dropout: [B, T, before] -> [B, T, after]."""

    def __init__(self, before: int, after: int, kernel: int, dilation: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(before, after, kernel, dilation=dilation))
        self.dropout = nn.Dropout1d(dropout)
        reach = (kernel - 1) * dilation
        # An even kernel can't be centred; its odd tap looks back.
        ahead = 0 if causal else reach // 2
        self.pad = (reach - ahead, ahead)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.pad(x.transpose(1, 2), self.pad))  # [B, after, T]
        return self.dropout(torch.relu(h)).transpose(1, 2)


def _steps_and_width(input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
    """What the encoder reads: the number of steps, and the number of features of each."""
    match input_shape:
        case (steps, int(width)):
            return steps, width
        case (int(channels), rows, int(columns)):
            return rows, channels * columns
    found = [*input_shape]
    if len(found) == 1:
        # As one step it would leave all taps of a kernel but one on padding, to learn nothing for ever.
        cure = "A vector has no steps to convolve over: use 'mlp', or shape the input [steps, features]"
    elif len(found) in (2, 3):
        cure = "Only the number of steps (of rows, in a map) may be null: fix the other axes"
    else:
        cure = "Flatten or join axes of the input"
    raise ValueError(f"encoder 'tcn' expected a sequence [T, D] or a map [C, H, W], found {found}. {cure}")


def _as_sequence(x: Tensor) -> Tensor:
    """[B, T, D] of a sequence, or of a map [B, C, H, W] by rows."""
    return x.transpose(1, 2).flatten(2) if x.ndim == 4 else x  # [B, H, C*W]


def _zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    # Filled, not multiplied: whatever stands in the padding may be NaN.
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
