"""`mtan`: one encoder for all tasks, of whose features each task attends to its own after each stage.

{"type": "mtan", "reduction": 4}

Liu et al. 2019, "End-to-End Multi-Task Learning with Attention", section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit.feature import Mask, Shape, Value, apply, feature_axis, pool, stages_of
from mtlkit.naming import ByName
from mtlkit.option import Size
from mtlkit.sharing.layer import ChannelNorm, Pointwise, channels
from mtlkit.trunk import Trunk

# Narrow stages are not squeezed below so many channels: on 12 tasks of Tox21, 8 of 32 cost 0.013 of ROC-AUC.
_INNER = 32


class MTAN(nn.Module):
    """A shared encoder and for each task one attention module a stage: a soft mask of the stage's features, made of
    these and of what the task attended to after the stage before. A task's features are the last stage's, masked.

    A stage's features serve both as what the mask is made of and as what it masks, where the paper has those of a
    block's first and second convolution. Where two stages' places correspond, on maps and on sequences of one fixed
    length, attention goes place by place; else what was attended to before is pooled. Maps get smaller by mean pooling,
    and from stage to stage each place is mapped alone, where the paper has 3 x 3 convolutions and max pooling.

    Args:
        reduction: the attention module's inner channels are the stage's divided by it, but 32 where that is fewer and
            the stage has so many.
    """

    def __init__(self, trunk: Trunk, tasks: Sequence[str], *, reduction: Size = 4) -> None:
        super().__init__()
        self.trunk = trunk.make()
        shapes = trunk.stage_shapes
        self.attentions: Any = nn.ModuleList(
            ByName({task: Attention(before, shape, reduction) for task in tasks})
            for before, shape in zip([None, *shapes[:-1]], shapes, strict=True)
        )

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        attended: dict[str, Value | None] = dict.fromkeys(tasks)
        for stage, attentions in zip(stages_of(self.trunk), self.attentions, strict=True):
            x, mask = apply(stage, x, mask)
            for task in tasks:
                attended[task] = attentions.of(task)(x, mask, attended[task]), mask
        return {task: value for task, value in attended.items() if value is not None}


class Attention(nn.Module):
    """A stage's features under a mask of 0 to 1, made of them and of what was attended to before."""

    def __init__(self, before: Shape | None, shape: Shape, reduction: int) -> None:
        super().__init__()
        width = channels(shape, "mtan")
        inner = min(width, max(width // reduction, _INNER))
        self.carry = None if before is None else Carry(before, shape)
        self.squeeze = Pointwise(width * (1 if before is None else 2), inner)
        self.squeeze_norm = ChannelNorm(inner)
        self.expand = Pointwise(inner, width)
        self.expand_norm = ChannelNorm(width)
        self._axis = feature_axis(shape) + 1

    def forward(self, x: Tensor, mask: Mask, before: Value | None) -> Tensor:
        read = x if self.carry is None or before is None else torch.cat([x, self.carry(before, x)], self._axis)
        inner = F.relu(self.squeeze_norm(self.squeeze(read), mask))
        return x * torch.sigmoid(self.expand_norm(self.expand(inner), mask))


class Carry(nn.Module):
    """What was attended to after one stage, in the shape of the next."""

    def __init__(self, before: Shape, shape: Shape) -> None:
        super().__init__()
        self.map = Pointwise(channels(before, "mtan"), channels(shape, "mtan"))
        self.norm = ChannelNorm(channels(shape, "mtan"))
        self._maps = len(before) == len(shape) == 3
        # Two sequences of any length need not correspond step by step.
        self._steps = len(before) == len(shape) == 2 and before[0] is not None and before[0] == shape[0]

    def forward(self, value: Value, like: Tensor) -> Tensor:
        x, mask = value
        if self._maps:
            x = x if x.shape[2:] == like.shape[2:] else F.adaptive_avg_pool2d(x, (like.shape[2], like.shape[3]))
        elif not self._steps:
            x, mask = pool(x, mask, "mean"), None
        carried = F.relu(self.norm(self.map(x), mask))
        if carried.ndim == like.ndim:
            return carried
        return carried[:, None].expand_as(like) if like.ndim == 3 else carried[..., None, None].expand_as(like)
