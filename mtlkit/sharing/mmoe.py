"""`mmoe`: some encoders for all tasks, the experts, of whose features each task takes a sum of its own.

{"type": "mmoe", "experts": 4}

Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.naming import ByName
from mtlkit.option import Depth
from mtlkit.sharing.layer import Gate, channels, mixtures, pooled
from mtlkit.trunk import Columns, Trunk


class MMoE(nn.Module):
    """Experts and for each task a gate that weighs them, for each example. `experts=1` is `hard`.

    Where the paper's gates read the input, these read the experts' pooled features (see `mtlkit.sharing.layer.Gate`).
    """

    def __init__(self, trunk: Trunk, tasks: Sequence[str], *, experts: Depth = 4) -> None:
        super().__init__()
        self.experts = Columns(trunk, [f"expert {i}" for i in range(experts)])
        width = channels(trunk.output_shape, "mmoe")
        self.gates = ByName({task: Gate(task, self.experts.names, width) for task in tasks})

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        values = [*self.experts.run(dict.fromkeys(self.experts.names, (x, mask)), together=True).values()]
        read = pooled(values)
        weights = [self.gates.of(task)(read) for task in tasks]
        return dict(zip(tasks, mixtures(values, weights), strict=True))
