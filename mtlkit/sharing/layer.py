"""What several schemes are made of: weights of features, sums under them, and layers for features of any kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit.feature import Mask, Shape, Value, feature_axis, pool, written
from mtlkit.trunk import Trunk, cut


class Mixing(nn.Module):
    """Learned weights [rows, columns], the same for every example: `self()` gives them.

    Args:
        rows: the names of what reads.
        columns: the names of what is read.
        initial: [rows, columns], or [..., rows, columns].
    """

    def __init__(self, rows: Sequence[str], columns: Sequence[str], initial: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = tuple(rows), tuple(columns)
        self.weight = nn.Parameter(initial.clone())

    def forward(self) -> Tensor:
        return self.weight


class Gate(nn.Module):
    """Weights of some features for one reader, for each example: the softmax of a linear map of what they say.

    It reads the features themselves, pooled, side by side and normalised, not the raw input of the trunk, which may be
    an image or a sentence of any length.

    Args:
        reader: the name of the reader, a task say.
        columns: the names of the features.
        width: the number of channels of each.
    """

    def __init__(self, reader: str, columns: Sequence[str], width: int) -> None:
        super().__init__()
        self.rows, self.columns = (reader,), tuple(columns)
        self.linear = nn.Linear(len(self.columns) * width, len(self.columns))

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, columns * width], as `pooled` gives it -> [B, columns]."""
        # Features of any scale leave the softmax soft at the start.
        return self.linear(F.layer_norm(pooled, pooled.shape[-1:])).softmax(-1)


def pooled(values: Sequence[Value]) -> Tensor:
    """What a gate reads of some features: [B, width] of each, side by side."""
    return torch.cat([pool(x, mask, "mean") for x, mask in values], -1)


def mixed(values: Sequence[Value], weights: Tensor) -> Value:
    """The sum of features of one shape under weights: [columns], or [B, columns] where each example has its own."""
    return mixtures(values, [weights])[0]


def mixtures(values: Sequence[Value], each: Sequence[Tensor]) -> list[Value]:
    """As `mixed`, under the weights of each of several readers.

    Only the stack is made for all: in one product for all, each sum would depend on the weights of every reader, as far
    as autograd can tell, and what a task has alone be shared.
    """
    stacked = torch.stack([x for x, _ in values])  # [columns, B, ...]
    return [(_sum(stacked, weights), values[0][1]) for weights in each]


def combined(weights: Tensor, stacked: Tensor) -> Tensor:
    """Sums over features [columns, B, ...] under weights [columns] or [rows, columns]: [B, ...] or [rows, B, ...]."""
    # Under autocast features come in lower precision than parameters.
    return torch.tensordot(weights.to(stacked.dtype), stacked, dims=1)


def _sum(stacked: Tensor, weights: Tensor) -> Tensor:
    if weights.ndim == 1:
        return combined(weights, stacked)
    return (weights.T.reshape(*stacked.shape[:2], *[1] * (stacked.ndim - 2)) * stacked).sum(0)


class Pointwise(nn.Linear):
    """A linear map of the channels at each place: of a vector [B, D], a sequence [B, T, D] or a map [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return F.conv2d(x, self.weight[..., None, None], self.bias)
        return F.linear(x, self.weight, self.bias)


class ChannelNorm(nn.Module):
    """Batch normalisation of the channels of features of any kind. Padding counts for nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, mask: Mask) -> Tensor:
        if x.ndim == 2:
            return self._normed(x)
        if x.ndim == 4:
            return self._normed(x.flatten(2)).view_as(x)
        # Without values, on the meta device, none can be selected; only shapes are asked for there.
        if mask is None or not self.training or x.is_meta:
            normed = self._normed(x.flatten(0, 1)).view_as(x)
            return normed if mask is None else normed.masked_fill(~mask.unsqueeze(-1), 0)
        return torch.zeros_like(x).masked_scatter(mask.unsqueeze(-1), self._normed(x[mask]))

    def _normed(self, x: Tensor) -> Tensor:
        norm = self.norm
        if self.training and x.numel() <= norm.num_features:
            # One value of each channel, the last example of an epoch say, has no spread of its own.
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(x)


def channels(shape: Shape, what: str) -> int:
    """The number of channels of features, for `what`, which needs it fixed.

    Raises:
        ValueError: it is not.
    """
    width = shape[feature_axis(shape)]
    if width is None:
        raise ValueError(f"{what} needs a fixed number of channels; found {written(shape)}")
    return width


def diagonal(size: int, same: float) -> Tensor:
    """[size, size] with `same` on the diagonal; the rest of 1 is shared by the others of a row, if there are any."""
    if size == 1:
        return torch.ones(1, 1)
    others = (1 - same) / (size - 1)
    return torch.full((size, size), others).fill_diagonal_(same)


def levels_of(trunk: Trunk, levels: int | None, scheme: str) -> list[tuple[int, int]]:
    """The stages (from, to before) of each level.

    Raises:
        ValueError: there are fewer stages than levels.
    """
    stages = len(trunk.stage_shapes)
    if levels is None:
        levels = min(2, stages)
    if levels > stages:
        raise ValueError(
            f"{scheme} with {levels} levels needs a trunk of at least {levels} stages; this one has {stages}. Give the "
            f"trunk more layers, or set levels = {stages}"
        )
    return cut(stages, levels)
