"""`cnn`: convolutions over a map, or over the steps of a sequence.

    {"type": "cnn", "channels": [32, 64], "kernel": 3, "norm": "batch", "pool": "max", "residual": True}

The trunk of LeNet-5 as multi-task papers use it:

    {"type": "sequential", "layers": [
        {"type": "cnn", "channels": [10, 20], "kernel": [9, 5], "padding": "valid", "norm": "none"},
        {"type": "mlp", "hidden": [50]}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit.encoder.layer import activation_layer
from mtlkit.feature import Mask, Shape, kind, run, written
from mtlkit.option import Activation, Probability, Size, Sizes

Padding = Literal["same", "valid"]
Pooling = Literal["max", "avg", "none"]
_WINDOW = 2  # each pooling halves a map


class CNN(nn.Module):
    """Blocks of convolution, norm, activation, pooling, dropout: [B, C, H, W] -> [B, channels[-1], H', W'].

    A sequence [B, T, D] is read as one-dimensional with D channels and stays a sequence [B, T', channels[-1]]; a
    vector has no neighbourhood to convolve over and is refused. Each block is a stage. `channels=(32, 64)` is two
    blocks; `kernel` is one size for all or one for each; `residual` adds a block's input to its activation, through
    a 1x1 convolution where the channels differ. `norm="batch"` counts no padding into its statistics.
    """

    input_dtype = "float32"

    def __init__(
        self,
        input_shape: Shape,
        *,
        channels: Annotated[Sizes, Field(min_length=1)] = (32, 64),  # type: ignore[assignment]
        kernel: Size | Sizes = 3,
        padding: Padding = "same",
        norm: Literal["none", "batch"] = "batch",
        activation: Activation = "relu",
        pool: Pooling = "max",
        dropout: Probability = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if len(input_shape) not in (2, 3):
            raise ValueError(
                f"encoder 'cnn' reads maps [C, H, W] or sequences [T, D]; found {written(input_shape)}, "
                f"{kind(input_shape)}. Use 'mlp' on vectors, or give the input its height and width"
            )
        kernels = [kernel] * len(channels) if isinstance(kernel, int) else list(kernel)
        if len(kernels) != len(channels):
            raise ValueError(f"kernel must be one size or {len(channels)}, as channels; found {len(kernels)}")
        if residual and padding == "valid":
            raise ValueError("residual needs padding 'same': a 'valid' convolution makes the map smaller")
        flat = len(input_shape) == 2
        block = SequenceBlock if flat else MapBlock
        before, *axes = (input_shape[1], input_shape[0]) if flat else input_shape
        if before is None:
            raise ValueError(f"encoder 'cnn' needs a fixed number of channels; found {written(input_shape)}")
        self.blocks = nn.ModuleList()
        for after, k in zip(channels, kernels, strict=True):
            self.blocks.append(block(Layout(before, after, k, padding, norm, activation, pool, dropout, residual)))
            shrink = k - 1 if padding == "valid" else 0
            axes = [None if n is None else _after(n - shrink, pool, flat) for n in axes]
            if any(n is not None and n < 1 for n in axes):
                raise ValueError(
                    f"nothing is left of {written(input_shape)} after block {len(self.blocks)} of {len(channels)}. "
                    "Use fewer blocks, a smaller kernel, padding 'same' or pool 'none'"
                )
            before = after
        self.output_shape = (axes[0], before) if flat else (before, *axes)

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return run(self.stages, x, mask)


def _after(steps: int, pool: Pooling, flat: bool) -> int:
    """The length of an axis after pooling. A sequence keeps a last incomplete window, a map drops it."""
    if pool == "none":
        return steps
    return -(-steps // _WINDOW) if flat else steps // _WINDOW


@dataclass(frozen=True)
class Layout:
    """What a block is made of."""

    before: int
    after: int
    kernel: int
    padding: Padding
    norm: str
    activation: Activation
    pool: Pooling
    dropout: float
    residual: bool


class MapBlock(nn.Module):
    """Convolution, norm, activation, pooling, dropout of a map [B, C, H, W]."""

    def __init__(self, of: Layout) -> None:
        super().__init__()
        self.conv = nn.Conv2d(of.before, of.after, of.kernel, padding=of.padding, bias=of.norm == "none")
        self.norm = nn.BatchNorm2d(of.after) if of.norm == "batch" else nn.Identity()
        self.activation = activation_layer(of.activation, in_place=True)
        self.pool = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d, "none": nn.Identity}[of.pool](_WINDOW)
        self.dropout = nn.Dropout2d(of.dropout) if of.dropout else nn.Identity()
        self.residual = of.residual
        self.shortcut = nn.Conv2d(of.before, of.after, 1) if of.residual and of.before != of.after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.conv(x)))  # [B, C', H', W']
        if self.residual:
            y = y + self.shortcut(x)
        return self.dropout(self.pool(y))


class SequenceBlock(nn.Module):
    """The same over a sequence [B, T, D]. Padding is zero to the convolution and counts for nothing afterwards."""

    def __init__(self, of: Layout) -> None:
        super().__init__()
        self.lost = of.kernel - 1 if of.padding == "valid" else 0
        self.conv = nn.Conv1d(of.before, of.after, of.kernel, padding=of.padding, bias=of.norm == "none")
        self.norm = nn.BatchNorm1d(of.after) if of.norm == "batch" else nn.Identity()
        self.activation = activation_layer(of.activation, in_place=True)
        self.pooling = of.pool
        self.dropout = nn.Dropout(of.dropout)
        self.residual = of.residual
        self.shortcut = nn.Linear(of.before, of.after) if of.residual and of.before != of.after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)  # [B, T', D']
        if mask is not None and self.lost:
            # Only windows that hold no padding are real.
            mask = mask.unfold(1, self.lost + 1, 1).all(-1)
        y = self.activation(self._normed(y, mask))
        if self.residual:
            y = y + self.shortcut(x)
        return self._pooled(self.dropout(y), mask)

    def _normed(self, y: Tensor, mask: Mask) -> Tensor:
        if mask is None:
            return self.norm(y.flatten(0, 1)).view_as(y)
        if not self.training:
            # Nothing is counted then, and to select the real steps a traced graph would need their number.
            return self.norm(y.flatten(0, 1)).view_as(y).masked_fill(~mask.unsqueeze(-1), 0)
        real = y[mask]  # [number of real steps, D']
        # Without a real step there are no statistics.
        return torch.zeros_like(y).masked_scatter(mask.unsqueeze(-1), self._of_real(real)) if len(real) else y

    def _of_real(self, real: Tensor) -> Tensor:
        norm = self.norm
        if not (self.training and isinstance(norm, nn.BatchNorm1d) and len(real) == 1):
            return norm(real)
        # One step alone has no spread of its own.
        return F.batch_norm(real, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    def _pooled(self, y: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        if self.pooling == "none":
            return y, mask
        real = torch.ones_like(y[..., :1]) if mask is None else mask.unsqueeze(-1).to(y.dtype)
        kept = F.max_pool1d(real.transpose(1, 2), _WINDOW, ceil_mode=True) > 0  # [B, 1, T'']
        if self.pooling == "max":
            y = F.max_pool1d(y.masked_fill(real == 0, -torch.inf).transpose(1, 2), _WINDOW, ceil_mode=True)
            # A window of padding alone. It is not looked for as -inf, of which some runtimes make a finite number.
            y = y.masked_fill(~kept, 0)
        else:
            # A mean over the real steps of the window, since the last window may be incomplete.
            sums, count = (F.avg_pool1d(v.transpose(1, 2), _WINDOW, ceil_mode=True) for v in (y * real, real))
            y = sums / count.clamp(min=torch.finfo(y.dtype).tiny)
        return y.transpose(1, 2), None if mask is None else kept.squeeze(1)
