"""`soft`: an encoder for each task, held together by a penalty on how their parameters differ.

    {"type": "soft", "penalty": "l2", "weight": 1e-3}
    {"type": "soft", "penalty": "trace_norm", "weight": 1e-3}

`l2` is Duong et al. 2015, "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network
Parser", for any number of tasks; `trace_norm` is Yang and Hospedales 2017, "Trace Norm Regularised Deep Multi-Task
Learning", with each parameter's tensor flattened along its last axis, the tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.option import NotNegative
from mtlkit.trunk import Columns, Trunk

_ROUNDING = 1e-12


class Soft(nn.Module):
    """An encoder for each task. To the sum of the losses is added `weight` times

    - `l2`: the squared distance of each task's parameters, biases and norms too, from the mean over the tasks;
    - `trace_norm`: for each parameter the sum of the singular values of the matrix whose rows are the tasks' values,
      which is small where they span a space of few dimensions.

    `weight=0` is `none`. One task alone has no penalty.
    """

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        penalty: Literal["l2", "trace_norm"] = "l2",
        weight: NotNegative = 1e-3,
    ) -> None:
        super().__init__()
        self.trunks = Columns(trunk, tasks)
        self.weight, self._measure = weight, {"l2": _distance, "trace_norm": _trace_norm}[penalty]

    @property
    def origins(self) -> dict[str, str]:
        return self.trunks.origins("trunks")

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        return self.trunks.run(dict.fromkeys(tasks, (x, mask)))

    def penalty(self) -> Tensor | None:
        if not self.weight or len(self.trunks) == 1:
            return None
        alike = [*zip(*(trunk.parameters() for trunk in self.trunks.values()), strict=True)]
        rows = [torch.stack([p.flatten() for p in one]) for one in alike]  # [tasks, n]
        return self.weight * torch.stack([self._measure(row) for row in rows]).sum() if rows else None


def _distance(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)).square().sum()


def _trace_norm(rows: Tensor) -> Tensor:
    # By the products of the few rows with one another: a singular value decomposition takes ten times as long.
    squares = torch.linalg.eigvalsh((rows @ rows.T).double())
    # Smaller ones are rounding, and the root has no slope at 0.
    return squares.clamp_min(_ROUNDING * squares.detach().amax().clamp_min(_ROUNDING)).sqrt().sum().to(rows.dtype)
