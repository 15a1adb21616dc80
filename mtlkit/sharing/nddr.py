"""`nddr`: an encoder for each task; after each stage all their channels together are reduced to each task's own.

{"type": "nddr", "same": 0.9, "norm": "batch"}

Gao et al. 2019, "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative Dimensionality
Reduction", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Shape, Value, join
from mtlkit.naming import ByName
from mtlkit.option import Fraction
from mtlkit.sharing.layer import ChannelNorm, Pointwise, channels, diagonal
from mtlkit.trunk import Columns, Trunk


class NDDR(nn.Module):
    """An encoder for each task. What a task's next stage reads is a linear map, place by place, of all tasks' channels.

    Args:
        same: the first weight of a task's own channels; the others' like channels share the rest of 1.
        norm: batch normalisation of each map, as in the paper, or none.
    """

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        same: Fraction = 0.9,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.trunks = Columns(trunk, tasks)
        first = diagonal(len(tasks), same)
        self.fusions: Any = nn.ModuleList(
            ByName({task: Fusion(tasks, shape, weights, norm) for task, weights in zip(tasks, first, strict=True)})
            for shape in trunk.stage_shapes
        )

    @property
    def origins(self) -> dict[str, str]:
        return self.trunks.origins("trunks")

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        everyone = self.trunks.names
        values = dict.fromkeys(everyone, (x, mask))
        for stage, fusions in enumerate(self.fusions):
            values = self.trunks.run(values, stage, stage + 1, together=True)
            together, _ = join([*values.values()])
            readers = tasks if stage == len(self.fusions) - 1 else everyone
            values = {task: fusions.of(task)(together, values[task][1]) for task in readers}
        return values


class Fusion(nn.Module):
    """All tasks' channels, side by side, to those of one task."""

    def __init__(self, columns: Sequence[str], shape: Shape, weights: Tensor, norm: str) -> None:
        super().__init__()
        self.columns = tuple(columns)
        width = channels(shape, "nddr")
        self.reduce = Pointwise(len(weights) * width, width, bias=norm == "none")
        with torch.no_grad():
            self.reduce.weight.copy_(torch.kron(weights[None, :], torch.eye(width)))
            if self.reduce.bias is not None:
                self.reduce.bias.zero_()
        self.norm = ChannelNorm(width) if norm == "batch" else None

    def forward(self, x: Tensor, mask: Mask) -> Value:
        y = self.reduce(x)
        return (y if self.norm is None else self.norm(y, mask)), mask
